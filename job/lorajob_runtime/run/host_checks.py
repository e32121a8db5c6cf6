"""Checks before a run starts that this version can train it, and that its dataset, GPUs and memory are there."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import identity
from lorajob_runtime.contract.errors import ConfigError, DataError, LorajobError
from lorajob_runtime.contract.spec import DataSpec, ModelSpec, RunSpec
from lorajob_runtime.contract.text import truncate
from lorajob_runtime.models import architecture, config_files, preflight, quantization, remote_code
from lorajob_runtime.models.placement import EstimatedPlacement
from lorajob_runtime.models.shapes import Architecture
from lorajob_runtime.storage.open import open_store
from lorajob_runtime.storage.store import Store, is_s3, split_s3
from lorajob_runtime.system import cgroup, child_process, environment
from lorajob_runtime.system import gpus as gpu_driver
from lorajob_runtime.system.environment import Device, Environment

_CLASS_PROBE = "lorajob_runtime.train.base_model.class_probe"


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """How many training processes run here, and on what."""

    processes: int
    device: Device


def choose_machine(
    *,
    processes: int | None,
    gpus: int,
    device: Device,
    visible: int | None = None,
    capability: tuple[int, int] | None = None,
) -> Machine:
    """One process a GPU that was asked for, or the number given.

    `visible` and `capability` are how many GPUs there are and what the oldest can do; None: the driver is asked.
    A platform that says `device: cpu` has CPUs stand in for GPUs; so does a number of processes where there is no GPU.
    Raises ConfigError for GPUs that are not there, and for some that torch has no kernels for.
    """
    wanted = gpus if processes is None else processes
    if device == "cpu":
        return Machine(processes=wanted, device="cpu")
    there = gpu_driver.visible_gpus() if visible is None else visible
    if there == 0 and processes is not None:
        return Machine(processes=wanted, device="cpu")
    if there < wanted:
        field = "resources.gpus" if processes is None else "processes"
        found = "no GPU is visible" if there == 0 else f"only {there} {'is' if there == 1 else 'are'} visible"
        raise ConfigError(
            f"{field} is {wanted}, but {found} here",
            hint="ask for fewer, or set LORAJOB_DEVICE=cpu to train on the CPU",
            path="resources.gpus" if processes is None else "",
        )
    capability = gpu_driver.oldest_capability() if capability is None else capability
    if capability is not None and capability < gpu_driver.OLDEST_CAPABILITY:
        needed = ".".join(map(str, gpu_driver.OLDEST_CAPABILITY))
        raise ConfigError(
            f"the GPU here has compute capability {capability[0]}.{capability[1]}, and torch needs at least {needed}",
            hint="use a newer GPU (Turing, like T4, or later), or set LORAJOB_DEVICE=cpu to train on the CPU",
        )
    return Machine(processes=wanted, device="auto")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What a model's configuration told: its shapes, where they are known, and how a run of them lies on the GPUs."""

    shapes: Architecture | None
    placement: EstimatedPlacement | None
    """None on a CPU, and where the shapes are not known."""
    host_bytes: int | None = None
    """What its weights take on this host, where it has no GPU."""


def check_trainable(spec: RunSpec) -> Architecture | None:
    """The model's shapes, as far as the spec and the catalog tell; ConfigError for what cannot be trained."""
    template = config_files.chat_template(preflight.folder_of(spec.model))
    shapes = preflight.architecture_of(spec.model)
    preflight.check(spec, shapes, template=template)
    if spec.model.quantize is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantize is {spec.model.quantize!r}: bitsandbytes is not installed here",
            hint="install lorajob[runtime] again, or leave model.quantize out",
            path="model.quantize",
        )
    return shapes


def check_products(spec: RunSpec, machine: Machine) -> None:
    """Raises ConfigError for products in FP8 on what has none."""
    if spec.train.base_compute is None:
        return
    if machine.device == "cpu":
        preflight.check_fp8(None)
    elif (capability := gpu_driver.oldest_capability()) is not None:
        preflight.check_fp8(capability)


def check_memory(spec: RunSpec, machine: Machine, *, nodes: int) -> EstimatedPlacement | None:
    """How the run lies on its GPUs, as far as the catalog or the model's folder tell its size.

    Raises ConfigError for GPUs that cannot hold the model.
    """
    return _check_memory(preflight.architecture_of(spec.model), spec, machine, nodes)


def inspector(spec: RunSpec, machine: Machine, *, nodes: int) -> Callable[[Path], Inspection]:
    """What looks at the model's own config.json, and a chat template beside it, before its weights are fetched.

    It raises ConfigError for what the run asks of the model and it has not, and for GPUs or a host that cannot hold it;
    ModelError for weights in a form that cannot be read, and for a model that transformers has no class for.
    """

    def inspect(config: Path) -> Inspection:
        values = config_files.read_config(config)
        quantization.fp8_blocks(spec.model.name, values)
        shapes = architecture.read(values)
        # what is known of a part of a model says nothing of the class for the whole
        if shapes is None or "text_config" in values:
            _check_class(spec.model, config, values)
        preflight.check(spec, shapes, template=config_files.chat_template(config.parent))
        placement = _check_memory(shapes, spec, machine, nodes)
        host_bytes = None
        if shapes is not None and machine.device == "cpu":
            host_bytes = preflight.check_host_memory(spec, shapes, host_bytes=cgroup.host_bytes(), nodes=nodes)
        return Inspection(shapes=shapes, placement=placement, host_bytes=host_bytes)

    return inspect


def _check_class(model: ModelSpec, config: Path, values: dict[str, Any]) -> None:
    """Raises ModelError when there is no class for the model: transformers has none, nor has code that may run.

    Where weights are here already loading tells.
    """
    brings_class = remote_code.reference(values, "AutoModelForCausalLM") is not None
    if (model.trust_remote_code and brings_class) or any(config.parent.glob("*.safetensors")):
        return

    def died(status: int, last_line: str) -> LorajobError:
        return LorajobError(
            f"transformers cannot tell whether it has a class for {model.name!r}: {truncate(last_line, 300)}",
            hint="install lorajob[runtime] in a new environment: a package that is installed here does not match it",
        )

    request = {"config": str(config)}
    with child_process.answers(_CLASS_PROBE, request, died=died, variables=environment.for_training()) as given:
        (answer,) = given
    if answer["class"] is None:
        raise remote_code.unsupported_model(model.name, values)


def _check_memory(
    shapes: Architecture | None, spec: RunSpec, machine: Machine, nodes: int
) -> EstimatedPlacement | None:
    """A CPU's memory is the host's, which the files of a model are held against and no estimate is made for."""
    if shapes is None or machine.device == "cpu":
        return None
    plain = spec.train.precision == "auto" and gpu_driver.gpus_multiply_bf16() is False
    return preflight.check_memory(
        spec,
        shapes,
        gpus=machine.processes,
        nodes=nodes,
        gpu_bytes=gpu_driver.gpu_bytes(),
        precision="fp32" if plain else None,
    )


def check_not_missing(data: DataSpec, environment: Environment, *, is_done: Callable[[], bool]) -> None:
    """As `check_data`, but a run that `is_done` no longer needs it. Asked only where it is missing."""
    try:
        check_data(data, environment)
    except DataError as error:
        try:
            done = is_done()
        except LorajobError:
            # storage that does not answer either: what was found first is told
            done = False
        if not done:
            raise error from None


def check_data(data: DataSpec, environment: Environment) -> None:
    """Raises DataError when the dataset that a spec names does not exist."""
    if data.source is None:
        return
    if is_s3(data.source):
        store, name = _object(data.source, environment)
        exists = any(entry.key == name for entry in store.list(name))
    else:
        exists = Path(data.source).expanduser().exists()
    if not exists:
        raise DataError(
            f"data.source is {data.source!r}: there is no such file", hint="correct the path or the address"
        )


def dataset_at_hand(data: DataSpec, work: Path, environment: Environment) -> frozenset[str]:
    """The hashes of the dataset that a spec names, as `identity.of_dataset`; none where there is no such file now.

    What has to be fetched goes below `work`. Raises what storage raises.
    """
    if data.source is None:
        # the example set changes with the version alone
        return frozenset()
    try:
        path = Path(data.source).expanduser()
        if is_s3(data.source):
            store, name = _object(data.source, environment)
            path = work / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            store.get(name, path)
        return identity.of_dataset(path)
    except (DataError, OSError):
        return frozenset()


def localize(data: DataSpec, work: Path, environment: Environment) -> DataSpec:
    """The same data with its source on this machine; one in storage is brought below `work`.

    Raises what storage raises.
    """
    if data.source is None:
        return data
    path = Path(data.source).expanduser()
    if is_s3(data.source):
        folder = work / "source"
        folder.mkdir(parents=True, exist_ok=True)
        store, name = _object(data.source, environment)
        path = folder / name
        store.get(name, path)
    return data if str(path) == data.source else dataclasses.replace(data, source=str(path))


def _object(address: str, environment: Environment) -> tuple[Store, str]:
    """`s3://bucket/a/rows.json` -> the store of s3://bucket/a, rows.json."""
    bucket, key = split_s3(address)
    folder, _, name = key.rpartition("/")
    if not name:
        raise DataError(f"data.source is {address!r}: it names a bucket but no file")
    return open_store(f"s3://{bucket}/{folder}", "", environment), name
