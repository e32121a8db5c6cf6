"""What a run's result rests on beside its spec: the dataset's content, the tokenizer, the base weights.

The one place that compares them, wherever a run goes on, publishes, or says that it is done. A run that goes on or
publishes has its tokens at hand, and those decide: where the file lies and how it is written make no difference. A
finished run tokenises nothing and fetches nothing: there the file's content and the model's files on this machine are
compared, and what is not at hand says nothing against the result.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.events import Event

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""What a model's folder may have of a tokenizer and its chat template."""

_EDGE_BYTES = 2**20
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Hashes of what a run was, or is to be, made with; None or empty where one is not known."""

    tokens: str | None = None
    """Of the token arrays."""
    contents: frozenset[str] = field(default_factory=frozenset)
    """Of the dataset's file; one that is compressed has two, as it lies there and unpacked."""
    tokenizer: str | None = None
    weights: str | None = None
    model: str = ""
    """Where the weights came from, for a person."""


def of_model(folder: Path) -> Identity:
    """The part that a model's folder says."""
    return Identity(tokenizer=tokenizer_fingerprint(folder), weights=weights_fingerprint(folder), model=str(folder))


def in_state(state: dict[str, Any]) -> Identity:
    """What state.json of a checkpoint says. Versions before this one wrote less of it."""
    content = state.get("source_sha256")
    source, revision = state.get("model_source"), state.get("model_revision")
    return Identity(
        tokens=state.get("data_fingerprint"),
        contents=frozenset([content] if content else []),
        tokenizer=state.get("tokenizer_fingerprint"),
        weights=state.get("weights_fingerprint"),
        model=f"{source} at {revision}" if source else "",
    )


def for_state(made_with: Identity) -> dict[str, str | None]:
    """What `in_state` reads; of the dataset's file the content as it was read."""
    return {
        "data_fingerprint": made_with.tokens,
        "source_sha256": next(iter(made_with.contents), None),
        "tokenizer_fingerprint": made_with.tokenizer,
        "weights_fingerprint": made_with.weights,
    }


def in_log(log: Iterable[Event]) -> Identity:
    """What the log of a run says of the data behind its last checkpoint, or, where it has none, of the last data."""
    data: Event = {}
    behind: Event = {}
    for event in log:
        if event["event"] == "report" and event.get("name") == "data":
            data = event
        elif event["event"] == "checkpoint":
            behind = data
    said = behind or data
    return with_data(Identity(), said)


def with_data(model: Identity, report: Mapping[str, Any]) -> Identity:
    """`model` with what the report of data preparation says of the data."""
    content = report.get("source_sha256")
    return replace(model, tokens=report.get("fingerprint"), contents=frozenset([content] if content else []))


def refuse_others(was: Identity, now: Identity, *, result: str) -> None:
    """Raises ConfigError for other data, another tokenizer or other weights than `result` was made with.

    Tokens outrank the file and the tokenizer that they come from. What one of the two does not know is not compared.
    """
    another = "give the run another name"
    if was.tokens and now.tokens:
        if was.tokens != now.tokens:
            raise _other_tokens(was, now, result, another)
    else:
        if was.contents and now.contents and not was.contents & now.contents:
            raise ConfigError(
                f"the content of data.source is not that which {result} was made with "
                f"(SHA-256 {_short(now.contents)}, then {_short(was.contents)})",
                hint=f"{another} to train on it, or the old data",
            )
        if was.tokenizer and now.tokenizer and was.tokenizer != now.tokenizer:
            raise ConfigError(
                f"the tokenizer or chat template in {now.model} is not that which {result} was made with",
                hint=f"{another}, or the old files",
            )
    if was.weights and now.weights and was.weights != now.weights:
        origin = f"; they came from {was.model}" if was.model else ""
        raise ConfigError(
            f"the weights in {now.model} are not those that {result} was made with{origin}",
            hint=f"{another}, or set model.source and model.revision to the old ones",
        )


def _other_tokens(was: Identity, now: Identity, result: str, another: str) -> ConfigError:
    """The error for other tokens, which says what made them other as far as that is known."""
    same_data = bool(was.contents & now.contents)
    same_tokenizer = was.tokenizer is not None and was.tokenizer == now.tokenizer
    if same_data and same_tokenizer:
        reason = "the data and the tokenizer are the same, but this version of lorajob makes other tokens of them"
        return ConfigError(
            f"the training tokens are not those of {result}: {reason}",
            hint=f"{another}, or go on with the version of lorajob that it was started with",
        )
    is_known = bool(was.contents) and was.tokenizer is not None
    listed = "the content of data.source or the model's files"
    if not is_known:
        # an older version made the checkpoint, and did not write down what of
        listed = "the content of data.source, the model's files or the version of lorajob"
    return ConfigError(
        f"the training tokens are not those of {result}: {listed} have changed", hint=f"{another}, or the old data"
    )


def weights_fingerprint(folder: Path) -> str:
    """Tells weights apart without reading all of them: names, sizes, and both ends of every safetensors file.

    Other revisions, other precisions and dequantised copies of a model differ in these.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            digest.update(content.read(_EDGE_BYTES))
            content.seek(max(0, size - _EDGE_BYTES))
            digest.update(content.read(_EDGE_BYTES))
    return digest.hexdigest()


def tokenizer_fingerprint(folder: Path) -> str:
    """A hash of all files of a tokenizer that a model's folder has."""
    digest = hashlib.sha256()
    for path in (folder / name for name in TOKENIZER_FILES):
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def of_dataset(path: Path) -> frozenset[str]:
    """SHA-256 of a dataset's file, and of what is in it where it is compressed with gzip. Raises OSError."""
    with path.open("rb") as file:
        found = {hashlib.file_digest(file, "sha256").hexdigest()}
    if path.suffix == ".gz":
        digest = hashlib.sha256()
        try:
            with gzip.open(path) as unpacked:
                while chunk := unpacked.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            # no run was made with a broken file
            return frozenset(found)
        found.add(digest.hexdigest())
    return frozenset(found)


def _short(hashes: frozenset[str]) -> str:
    """The first digits, as git shows them."""
    return " or ".join(sorted(each[:12] for each in hashes))
