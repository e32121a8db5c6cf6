"""How the result names its base model to those who do not have this machine. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from lorajob_runtime.contract import catalog, hubs
from lorajob_runtime.contract.catalog import ModelEntry
from lorajob_runtime.contract.hubs import HUGGING_FACE, PACKAGE, S3, Hub

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
    """The base of a run from where its files came, as FetchedModel says it.

    PEFT and transformers load ids of Hugging Face: a model of the catalog is named by that, wherever it came from.
    """
    hub, rest = hubs.parse(source) or (hubs.FOLDER, source)
    entry = _embedded(rest) if hub == PACKAGE else catalog.find(source)
    licence = entry.licence if entry is not None else None
    loadable = entry.ids.get(HUGGING_FACE.name) if entry is not None else None
    if hub == PACKAGE and loadable is not None:
        origin = f"the Python package {rest} {revision}, dequantised to bf16"
        return _on_hub(loadable, HUGGING_FACE, origin, licence, exact=False)
    if hub == HUGGING_FACE:
        return _on_hub(rest, hub, f"{hub.title}, commit {revision}", licence, revision=revision)
    if hub.is_model_hub:
        origin = f"{hub.title} {rest}, revision {revision}"
        if loadable is not None:
            return _on_hub(loadable, HUGGING_FACE, origin, licence)
        return _on_hub(rest, hub, origin, licence)
    folder = PurePath(source).name
    origin = S3.title if hub == S3 else f"{hub.title} ({revision})"
    return BaseModelOrigin(load_name=source, shown=folder, hub_revision=None, origin=origin, licence=licence)


def _embedded(package: str) -> ModelEntry | None:
    return next((entry for entry in catalog.entries().values() if entry.embedded == package), None)


def _on_hub(
    name: str, hub: Hub, origin: str, licence: str | None, *, revision: str | None = None, exact: bool = True
) -> BaseModelOrigin:
    return BaseModelOrigin(
        load_name=name,
        shown=name,
        hub_revision=revision,
        origin=origin,
        licence=licence,
        page=hub.page_of(name),
        exact=exact,
    )


def hub_licence(licence: str) -> tuple[str, str | None]:
    """A licence as the Hub's metadata has it: its identifier, and its own name where it is none of the common ones."""
    plain = licence.lower()
    return (plain, None) if plain in _FREE_LICENCES else ("other", licence)
