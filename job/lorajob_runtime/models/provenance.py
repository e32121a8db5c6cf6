"""How the result names its base model to those who do not have this machine. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.catalog import ModelEntry

_HUGGING_FACE = "https://huggingface.co/"
_MODELSCOPE = "https://modelscope.cn/models/"
_FREE_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "gpl-3.0"})


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModelOrigin:
    """The base model as the adapter's files name it.

    `load_name` is what PEFT and transformers load: a hub id, or a folder's path. `shown` is the same without the
    machine's paths, `page` its address on a hub, `hub_revision` the commit where the weights came from Hugging Face.
    `exact` is False when training saw weights that differ a little from the published ones.
    """

    load_name: str
    shown: str
    hub_revision: str | None
    origin: str
    licence: str | None
    page: str | None = None
    exact: bool = True

    @property
    def on_hub(self) -> bool:
        """Whether `load_name` is an id on a hub."""
        return self.page is not None


def describe(source: str, revision: str) -> BaseModelOrigin:
    """The base of a run from where its files came, as FetchedModel says it."""
    kind, _, rest = source.partition(":")
    entry = _embedded(rest) if kind == "package" else catalog.find(source)
    licence = entry.licence if entry is not None else None
    if kind == "package" and entry is not None:
        origin = f"the Python package {rest} {revision}, dequantised to bf16"
        return _on_hub(entry.huggingface, _HUGGING_FACE, origin, licence, exact=False)
    if kind == "hf":
        origin = f"Hugging Face, commit {revision}"
        return _on_hub(rest, _HUGGING_FACE, origin, licence, revision=revision)
    if kind == "modelscope":
        origin = f"ModelScope {rest}, revision {revision}"
        if entry is not None:
            return _on_hub(entry.huggingface, _HUGGING_FACE, origin, licence)
        return _on_hub(rest, _MODELSCOPE, origin, licence)
    folder = PurePath(source).name
    origin = "S3" if kind == "s3" else f"a local folder ({revision})"
    return BaseModelOrigin(load_name=source, shown=folder, hub_revision=None, origin=origin, licence=licence)


def _embedded(package: str) -> ModelEntry | None:
    return next((entry for entry in catalog.entries().values() if entry.embedded == package), None)


def _on_hub(
    name: str, hub: str, origin: str, licence: str | None, *, revision: str | None = None, exact: bool = True
) -> BaseModelOrigin:
    return BaseModelOrigin(
        load_name=name,
        shown=name,
        hub_revision=revision,
        origin=origin,
        licence=licence,
        page=hub + name,
        exact=exact,
    )


def hub_licence(licence: str) -> tuple[str, str | None]:
    """A licence as the Hub's metadata has it: its identifier, and its own name where it is none of the common ones."""
    plain = licence.lower()
    return (plain, None) if plain in _FREE_LICENCES else ("other", licence)
