"""What a user means by RUN or DIR: an adapter's folder on this machine, its base model, and how to ask it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime.contract import catalog, hubs, layout, spec
from lorajob_runtime.contract.errors import ConfigError, ModelError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.publish import adapter_info
from lorajob_runtime.storage.open import open_store
from lorajob_runtime.storage.store import Store, is_s3
from lorajob_runtime.system.environment import Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """An adapter and how its prompts were made in training."""

    adapter: Path
    base: ModelSpec
    system: str | None
    thinking: bool


@contextmanager
def find(text: str, *, storage: str, environment: Environment, trust_remote_code: bool = False) -> Iterator[Target]:
    """The target of RUN or DIR; from S3 its adapter is here for as long as the block lasts.

    Raises ConfigError when there is no such thing, ModelError for an adapter that is not whole.
    """
    folder = Path(text).expanduser()
    if not is_s3(text) and folder.is_dir():
        yield _in_folder(folder.resolve(), trust_remote_code)
        return
    if not is_s3(text) and not spec.valid_name(text):
        raise ConfigError(f"{text!r} is neither a folder nor a run's name", hint="")
    uri, name, below = _split(text) if is_s3(text) else (storage, text, None)
    if not is_s3(uri):
        folder = Path(uri).expanduser() / name
        if not folder.is_dir():
            raise ConfigError(
                f"no run {name!r} in {uri}: it must be a run's name there, or a folder",
                hint=f"of a run on a cluster give s3://BUCKET/PREFIX/{name}: `lorajob status {name}` shows where it is",
            )
        yield _in_folder(folder.resolve(), trust_remote_code)
        return
    with tempfile.TemporaryDirectory(prefix="lorajob-adapter-") as copy:
        _download(open_store(uri, name, environment), Path(copy), below)
        yield _in_folder(Path(copy), trust_remote_code)


def adapter_in(names: Set[str]) -> str | None:
    """Where below a folder with these files (relative, with /) the adapter lies: "" for the folder itself.

    The published adapter of a run comes before its checkpoints, of which the newest complete one counts.
    """
    if layout.ADAPTER_CONFIG in names:
        return ""
    if layout.adapter_key(layout.ADAPTER_CONFIG) in names:
        return layout.ADAPTER
    files = (layout.checkpoint_file(name) for name in names)
    complete = [file[0] for file in files if file is not None and file[1] == layout.MANIFEST]
    return layout.checkpoint_key(max(complete)) if complete else None


def _in_folder(root: Path, trust_remote_code: bool) -> Target:
    patterns = (layout.ADAPTER_CONFIG, f"*/{layout.ADAPTER_CONFIG}", f"{layout.CHECKPOINTS}/*/{layout.MANIFEST}")
    found = adapter_in({path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)})
    if found is None:
        raise ConfigError(
            f"{root} holds no adapter: it must be a run's folder, an adapter's, or a checkpoint's", hint=""
        )
    adapter = root / found
    if not (adapter / layout.ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"{adapter} has no {layout.ADAPTER_WEIGHTS}: pickled weights are not loaded")
    known = adapter_info.read(adapter)
    if known is not None:
        base = known.base(trust_remote_code=trust_remote_code)
        return Target(adapter=adapter, base=base, system=known.system, thinking=known.thinking)
    for parent in (adapter, *adapter.parents[:2]):
        if (parent / layout.SPEC).is_file():
            return _by_spec(adapter, parent / layout.SPEC, trust_remote_code)
    return _foreign(adapter, trust_remote_code)


def _by_spec(adapter: Path, path: Path, trust_remote_code: bool) -> Target:
    """A checkpoint, known by its run's spec."""
    run = spec.loads(path.read_text(encoding="utf-8"))
    base = ModelSpec(
        name=run.model.name,
        source=run.model.source,
        revision=run.model.revision,
        trust_remote_code=trust_remote_code,
        quantize=run.model.quantize,
    )
    return Target(adapter=adapter, base=base, system=run.data.system, thinking=run.data.thinking)


def _foreign(adapter: Path, trust_remote_code: bool) -> Target:
    """An adapter that lorajob did not make: its base as PEFT names it, asked without a system prompt."""
    path = adapter / layout.ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        name = config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: it must be JSON as PEFT writes it", hint="copy it again") from error
    if not name:
        raise ModelError(f"{adapter / layout.ADAPTER_CONFIG} names no base model")
    known = catalog.find(name) is not None or Path(name).is_dir()
    source = name if known else hubs.HUGGING_FACE.address(name)
    base = ModelSpec(name=name, source=source, revision=config.get("revision"), trust_remote_code=trust_remote_code)
    return Target(adapter=adapter, base=base, system=None, thinking=False)


def _split(address: str) -> tuple[str, str, str | None]:
    """Storage, run, and which checkpoint of it: …/checkpoints/step-000100 needs what lies in the run, too."""
    uri, name = address.rstrip("/").rsplit("/", 1)
    run, _, folder = uri.rpartition("/")
    step = layout.step_of(name)
    if folder != layout.CHECKPOINTS or step is None:
        return uri, name, None
    uri, name = run.rsplit("/", 1)
    return uri, name, layout.checkpoint_key(step)


def _download(store: Store, folder: Path, below: str | None) -> None:
    """Copies an adapter, and what says how to ask it, out of storage; of a run the one at `below`, if that is given."""
    names = {entry.key for entry in store.list()}
    found = adapter_in(names) if below is None else below
    if found is None or f"{found}/{layout.ADAPTER_CONFIG}".lstrip("/") not in names:
        raise ConfigError(
            f"{store.uri} holds no adapter: it must be a run's address, an adapter's, or a checkpoint's", hint=""
        )
    prefix = f"{found}/" if found else ""
    wanted = [name for name in names if name.startswith(prefix) and "/" not in name[len(prefix) :]]
    skipped = {prefix + name for name in layout.RESUME_ONLY}
    # an adapter is data: code that lies beside it is not copied
    skipped |= {name for name in names if name.endswith(".py")}
    for name in sorted({*wanted, layout.SPEC} & names - skipped):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        store.get(name, target)
