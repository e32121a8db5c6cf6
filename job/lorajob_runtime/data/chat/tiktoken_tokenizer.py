"""A tokenizer from a family's tiktoken file, without the Python code that its repository brings for that.

The file holds byte strings in base64 and their ranks. Every pair of pieces that make a string is a merge of its rank,
as in transformers' TikTokenConverter; the split pattern and the control tokens are facts of the family. The same ids as
tiktoken's on thousands of texts, Chinese, English and code.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.models import config_files, families
from lorajob_runtime.models.families.family import TiktokenFile

_KEPT = ("chat_template", "model_max_length", "eos_token", "pad_token", "bos_token", "additional_special_tokens")


def found(folder: Path) -> TiktokenFile | None:
    """What is known of a folder's tokenizer that is there in this form only; None for any other."""
    if (folder / "tokenizer.json").exists():
        return None
    named = config_files.tokenizer_config(folder).get("tokenizer_class")
    known = (family.tiktoken for family in families.ALL if family.tiktoken is not None)
    return next((each for each in known if each.class_name == named and (folder / each.file).is_file()), None)


@functools.lru_cache(maxsize=1)
def load(folder: Path, known: TiktokenFile) -> Any:
    """The tokenizer as transformers' own class, with the settings beside it. Raises ModelError for a broken file."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ranks = _ranks(folder / known.file)
    letters = _letters()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [(text(left), text(right)) for left, right in _merges(ranks)]
    vocabulary = {text(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=False, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(known.split_pattern), behavior="isolated", invert=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in known.control_tokens])
    stored = config_files.tokenizer_config(folder)
    settings = {key: stored[key] for key in _KEPT if stored.get(key) is not None}
    if (template := folder / config_files.CHAT_TEMPLATE).is_file():
        settings["chat_template"] = template.read_text("utf-8")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **settings)


def _ranks(path: Path) -> dict[bytes, int]:
    """Byte string -> rank, in the order of ranks."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ModelError(
                f"{path} is not a tiktoken file: line {number} is not a base64 string with a rank"
            ) from error
    if sorted(ranks.values()) != list(range(len(ranks))) or len(ranks) < 256:
        raise ModelError(
            f"{path} is not a tiktoken file: its ranks must be 0, 1, 2 and so on, and all bytes among them"
        )
    return ranks


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of known strings that make a known one, the lowest rank first."""
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = ((token[:place], token[place:]) for place in range(1, len(token)))
        known = [pair for pair in halves if pair[0] in ranks and pair[1] in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _letters() -> list[str]:
    """A printable letter for every byte: itself where it is one, else the next from 256 on (GPT-2's byte alphabet)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(plain))
    return [letters[byte] for byte in range(256)]
