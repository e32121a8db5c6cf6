"""Lists the places that a model can come from, in the order in which they are tried. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lorajob_runtime.contract import catalog, hubs
from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.hubs import FOLDER, PACKAGE, Hub
from lorajob_runtime.contract.spec import FOLDERS, ModelSpec
from lorajob_runtime.fetch.hubs import Source

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


def candidates(model: ModelSpec, order: Iterable[str] = hubs.NAMES) -> list[Source]:
    """Where the model's files can come from, the first choice first.

    A catalog model that a package holds comes from there unless a revision is asked for; then from the model hubs, in
    their order. Anything else names its one place. Raises ModelError for a name that is no place.
    """
    text = model.source or model.name
    explicit = _explicit(text, model.revision)
    if explicit is not None:
        return [explicit]
    if (entry := catalog.find(text)) is None:
        if Path(text).expanduser().is_dir():
            return [_source(FOLDER, str(Path(text).expanduser().resolve()), None)]
        raise _unknown(text)
    found: list[Source] = []
    if entry.embedded is not None and model.revision is None:
        found.append(_source(PACKAGE, entry.embedded, None))
    found += [_source(hubs.BY_NAME[name], entry.ids[name], model.revision) for name in order if name in entry.ids]
    return found


def _explicit(text: str, revision: str | None) -> Source | None:
    """The source of a text that says what kind of place it means; None for a bare name."""
    if text.startswith(FOLDERS):
        path = Path(text).expanduser()
        if not path.is_dir():
            raise ModelError(f"the model folder {text} does not exist")
        return _source(FOLDER, str(path.resolve()), None)
    if (parsed := hubs.parse(text)) is None:
        return None
    hub, rest = parsed
    if hub.is_model_hub and (_HUB_ID.fullmatch(rest) is None or ".." in rest):
        raise ModelError(f"{text!r} is not the name of a model: it must be like {hub.form}")
    if hub == PACKAGE:
        if rest not in {entry.embedded for entry in catalog.entries().values() if entry.embedded}:
            raise ModelError(f"{text!r} is not a package with a model of the catalog")
        revision = None
    return _source(hub, rest.strip("/"), revision)


def _source(hub: Hub, name: str, revision: str | None) -> Source:
    wanted = revision or hub.default_revision
    if wanted and (_REVISION.fullmatch(wanted) is None or ".." in wanted):
        raise ModelError(f"model.revision is {wanted!r}: it must be a branch, a tag or a commit")
    return Source(kind=hub.name, id=name, revision=wanted)


def _unknown(text: str) -> ModelError:
    if _HUB_ID.fullmatch(text):
        addresses = " or ".join(hub.address(text) for hub in hubs.MODEL_HUBS)
        return ModelError(f"{text!r} is neither a folder nor in the catalog: write {addresses}")
    try:
        catalog.get(text)
    except ModelError as error:
        return error
    return ModelError(f"unknown model {text!r}")
