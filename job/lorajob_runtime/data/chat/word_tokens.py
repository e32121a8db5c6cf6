"""Texts as token ids, word by word where that is exact: a word that came before is looked up, not tokenised again.

A byte pair tokenizer first splits a text at its added tokens, then by a pattern, and turns each piece into tokens by
itself. No pattern of PATTERNS has a match with anything but white space before a space inside it, so that one ends
before every such space: text on both sides of it becomes the same tokens apart as together. Nothing in front of a space
composes with it either, where a normalizer makes NFC of the text. A tokenizer of any other kind gets its texts whole.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from lorajob_runtime.data.chat.tokenizer import Tokenizer, encode

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = frozenset(
    (
        rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{_END}",
        rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}{_END}",
        rf"{_BEFORE}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_BEFORE}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    )
)
"""Patterns by which tokenizers split: of Qwen 2 and 3; of Llama 3, GLM and Hunyuan; of GPT-4o and its kind."""

_WORDS_MAX = 200_000
_CHARACTERS_MAX = 4_000_000
_NEW_MAX = 1 / 3
"""Of the words of some texts the share that may be new for it to pay that each is tokenised by itself."""

_REST = 7

Tokens = bytes
"""Token ids as int32, in the machine's order."""


class WordTokens:
    """The tokens of texts for one tokenizer: the very ids of `tokenizer.encode`. What is kept is bounded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._words = word_pattern(tokenizer)
        self._added = _added_pattern(tokenizer) if self._words is not None else None
        self._behind_space: dict[str, Tokens] = {}
        """Of words that stand behind one space, with that; by the word alone, as `str.split` has it."""
        self._others: dict[str, Tokens] = {}
        self._characters = 0
        self._resting = 0
        """Calls in which no words are looked for, as the last ones had few that came before."""

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """The token ids of each text, nothing added in front or behind."""
        if self._words is None or self._resting:
            self._resting = max(0, self._resting - 1)
            return _whole(self._tokenizer, texts)
        found: list[Tokens | None] = list(map(self._looked_up, texts))
        missing = [place for place, tokens in enumerate(found) if tokens is None]
        if missing:
            self._tell(texts, missing, found)
        if self._characters > _CHARACTERS_MAX or len(self._others) + len(self._behind_space) > _WORDS_MAX:
            self._behind_space, self._others, self._characters = {}, {}, 0
        return found  # type: ignore[return-value]

    def _looked_up(self, text: str) -> Tokens | None:
        """The tokens of a text whose words are all known."""
        found: list[Tokens] = []
        try:
            for piece in self._added.split(text):  # type: ignore[union-attr]
                if not piece:
                    continue
                if _has_odd_blanks(piece):
                    found += map(self._of_word, self._words.findall(piece))  # type: ignore[union-attr]
                    continue
                first, *words = piece.split(" ")
                if first:
                    found.append(self._others[first])
                found += map(self._behind_space.__getitem__, words)
        except KeyError:
            return None
        return b"".join(found)

    def _of_word(self, word: str) -> Tokens:
        return self._behind_space[word[1:]] if _is_behind_space(word) else self._others[word]

    def _tell(self, texts: Sequence[str], missing: Sequence[int], found: list[Tokens | None]) -> None:
        """Finds the tokens of texts with words that are not known yet, and keeps those of the words where that pays."""
        counts = Counter(chain.from_iterable([self._words.findall(texts[place]) for place in missing]))  # type: ignore[union-attr]
        unknown = [word for word in counts if not self._is_known(word)]
        if len(unknown) > _NEW_MAX * counts.total():
            unknown = [word for word in unknown if counts[word] > 1]
        self._learn(unknown)
        whole = []
        for place in missing:
            found[place] = self._looked_up(texts[place])
            if found[place] is None:
                whole.append(place)
        for place, tokens in zip(whole, _whole(self._tokenizer, [texts[place] for place in whole]), strict=True):
            found[place] = tokens
        self._resting = _REST if len(whole) > len(texts) / 2 else 0

    def _is_known(self, word: str) -> bool:
        return word[1:] in self._behind_space if _is_behind_space(word) else word in self._others

    def _learn(self, words: Sequence[str]) -> None:
        for word, tokens in zip(words, _whole(self._tokenizer, words), strict=True):
            self._characters += len(word)
            if _is_behind_space(word):
                self._behind_space[word[1:]] = tokens
            else:
                self._others[word] = tokens


def _is_behind_space(word: str) -> bool:
    return word[0] == " " and " " not in word[1:]


_BLANKS = ("  ", "\n ", "\t ", "\r ", "\v ", "\f ")
_ODD = re.compile(r"[\s\u180e] ")


def _has_odd_blanks(text: str) -> bool:
    """Whether any space stands behind white space, and so is no edge of a word."""
    if not text.isascii():
        return _ODD.search(text) is not None
    return any(map(text.__contains__, _BLANKS))


def _whole(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tokens]:
    return [np.asarray(ids, dtype=np.int32).tobytes() for ids in encode(tokenizer, texts)]


def word_pattern(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """What finds the words of a text one after another, added tokens by themselves; None where texts stay whole."""
    if not getattr(tokenizer, "is_fast", False) or not _is_known(tokenizer.backend_tokenizer):
        return None
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    if any(each.lstrip or each.rstrip or each.single_word or each.normalized for each in added):
        return None
    if any(not each.content or re.search(r"\s", each.content) for each in added):
        return None
    token = _alternatives(tokenizer)
    first = "".join(re.escape(character) for character in sorted({each.content[0] for each in added}))
    run = rf"(?:[^ {first}]+|(?!{token})[{first}])*" if first else "[^ ]*"
    # behind white space a space is no edge of a word
    return re.compile(rf"{token}|(?s:.){run}(?:(?<=[\s\u180e]) {run})*")


def _added_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    """What a text is split by into added tokens and what stands between them."""
    return re.compile(f"({_alternatives(tokenizer)})")


def _alternatives(tokenizer: Tokenizer) -> str:
    """The longest of the added tokens that begin at a place, as a tokenizer takes them."""
    names = {each.content for each in tokenizer.backend_tokenizer.get_added_tokens_decoder().values()}
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"


def _is_known(backend: Any) -> bool:
    from tokenizers import models

    if type(backend.model) is not models.BPE or backend.model.dropout:
        return False
    if backend.normalizer is not None and _stated(backend.normalizer) != {"type": "NFC"}:
        return False
    splits = _stated(backend.pre_tokenizer) if backend.pre_tokenizer is not None else {}
    parts = splits["pretokenizers"] if splits.get("type") == "Sequence" else [splits]
    return bool(parts) and all(map(_is_known_split, parts)) and any(map(_splits_words, parts))


def _stated(part: Any) -> dict[str, Any]:
    stated: dict[str, Any] = json.loads(part.__getstate__())
    return stated


def _is_known_split(part: dict[str, Any]) -> bool:
    if part.get("type") == "ByteLevel":
        return not part["add_prefix_space"]
    return part.get("type") == "Digits" or _splits_words(part)


def _splits_words(part: dict[str, Any]) -> bool:
    if part.get("type") == "ByteLevel":
        return bool(part["use_regex"])
    is_split = part.get("type") == "Split" and part["behavior"] == "Isolated" and not part["invert"]
    return is_split and part["pattern"].get("Regex") in PATTERNS
