"""How the result names its base model to those who do not have this machine. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from lorajob_runtime import catalog

_FREE_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "gpl-3.0"})


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """The base model as the adapter's files name it.

    `load_name` is what PEFT and transformers load: a hub id, or a folder's path. `shown` is the same without the
    machine's paths. `hub_revision` is a commit on Hugging Face, where the weights came from there. `exact` is False
    when training saw weights that differ a little from the published ones.
    """

    load_name: str
    shown: str
    hub_revision: str | None
    origin: str
    licence: str | None
    exact: bool = True

    @property
    def on_hub(self) -> bool:
        """Whether `load_name` is an id on a hub, which a model card may link."""
        return self.load_name == self.shown and re.fullmatch(r"[\w.-]+/[\w.-]+", self.load_name) is not None


def describe(name: str, source: str, revision: str) -> BaseModel:
    """The base of a run from the model's name in the spec, and from where its files came."""
    kind, _, rest = source.partition(":")
    entry = catalog.find(name) or catalog.find(source)
    licence = entry.licence if entry is not None else None
    if kind == "package" and entry is not None:
        origin = f"the Python package {rest} {revision}, dequantised to bf16"
        hub = entry.huggingface
        return BaseModel(load_name=hub, shown=hub, hub_revision=None, origin=origin, licence=licence, exact=False)
    if kind == "hf":
        origin = f"Hugging Face, commit {revision}"
        return BaseModel(load_name=rest, shown=rest, hub_revision=revision, origin=origin, licence=licence)
    if kind == "modelscope":
        found = catalog.find(source)
        hub = found.huggingface if found is not None else rest
        origin = f"ModelScope {rest}, revision {revision}"
        return BaseModel(load_name=hub, shown=hub, hub_revision=None, origin=origin, licence=licence)
    folder = PurePath(source).name
    origin = "S3" if kind == "s3" else f"a local folder ({revision})"
    return BaseModel(load_name=source, shown=folder, hub_revision=None, origin=origin, licence=licence)


def hub_licence(licence: str) -> tuple[str, str | None]:
    """A licence as the Hub's metadata has it: its identifier, and its own name where it is none of the common ones."""
    plain = licence.lower()
    return (plain, None) if plain in _FREE_LICENCES else ("other", licence)
