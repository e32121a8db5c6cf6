"""Which places a model can come from, in the order to try them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.spec import FOLDERS, ModelSpec

Kind = Literal["package", "folder", "modelscope", "hf", "s3"]

_DEFAULT_REVISION: dict[Kind, str] = {"package": "", "folder": "", "modelscope": "master", "hf": "main", "s3": "latest"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One place: a hub's ORG/NAME, `bucket/prefix`, a package's name, or a folder's path; and which revision of it."""

    kind: Kind
    id: str
    revision: str

    def __str__(self) -> str:
        if self.kind == "folder":
            return self.id
        return f"s3://{self.id}" if self.kind == "s3" else f"{self.kind}:{self.id}"


def candidates(model: ModelSpec, hubs: tuple[str, ...]) -> list[Source]:
    """Where the model's files may be had, the first choice first.

    A catalog model that a package holds comes from there unless a revision is asked for; then from the hubs as
    ordered. Anything else names its one place. Raises ModelError for a name that is no place.
    """
    text = model.source or model.name
    explicit = _explicit(text, model.revision)
    if explicit is not None:
        return [explicit]
    if (entry := catalog.find(text)) is None:
        if Path(text).expanduser().is_dir():
            return [_source("folder", str(Path(text).expanduser().resolve()), None)]
        raise _unknown(text)
    found: list[Source] = []
    if entry.embedded is not None and model.revision is None:
        found.append(_source("package", entry.embedded, None))
    ids: dict[Kind, str] = {"modelscope": entry.modelscope, "hf": entry.huggingface}
    found += [_source(kind, ids[kind], model.revision) for hub in hubs for kind in ids if kind == hub]
    return found


def _explicit(text: str, revision: str | None) -> Source | None:
    """The source of a text that says what kind of place it means; None for a bare name."""
    if text.startswith("s3://"):
        return _source("s3", text.removeprefix("s3://").strip("/"), revision)
    kind, colon, rest = text.partition(":")
    if colon and kind in ("modelscope", "hf"):
        if _HUB_ID.fullmatch(rest) is None or ".." in rest:
            raise ModelError(f"{text!r} names no model: it must be like {kind}:ORG/NAME")
        return _source("modelscope" if kind == "modelscope" else "hf", rest, revision)
    if colon and kind == "package":
        if rest not in {entry.embedded for entry in catalog.entries().values() if entry.embedded}:
            raise ModelError(f"{text!r} names no package that holds a model of the catalog")
        return _source("package", rest, None)
    if text.startswith(FOLDERS):
        path = Path(text).expanduser()
        if not path.is_dir():
            raise ModelError(f"the model folder {text} does not exist")
        return _source("folder", str(path.resolve()), None)
    return None


def _source(kind: Kind, name: str, revision: str | None) -> Source:
    wanted = revision or _DEFAULT_REVISION[kind]
    if wanted and (_REVISION.fullmatch(wanted) is None or ".." in wanted):
        raise ModelError(f"model.revision is {wanted!r}: it must be a branch, a tag or a commit")
    return Source(kind=kind, id=name, revision=wanted)


def _unknown(text: str) -> ModelError:
    if _HUB_ID.fullmatch(text):
        return ModelError(f"{text!r} is no folder and not in the catalog: write modelscope:{text} or hf:{text}")
    try:
        catalog.get(text)
    except ModelError as error:
        return error
    return ModelError(f"unknown model {text!r}")
