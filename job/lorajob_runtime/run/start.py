"""Prepares a start of a run: checks what can be checked at once, and takes hold of the run for this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from lorajob_runtime.contract import identity
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.identity import Identity
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.run.coordinator import Coordinator
from lorajob_runtime.run.event_stream import EventWriter
from lorajob_runtime.run.host_checks import (
    Machine,
    check_memory,
    check_not_missing,
    check_products,
    check_trainable,
    choose_machine,
    dataset_at_hand,
)
from lorajob_runtime.run.limits import Limits
from lorajob_runtime.run.signals import StopSignals
from lorajob_runtime.storage import ownership, resume
from lorajob_runtime.storage.open import open_store, run_folder
from lorajob_runtime.storage.ownership import Lease
from lorajob_runtime.storage.resume import ResumePoint
from lorajob_runtime.storage.store import Store
from lorajob_runtime.storage.writer import writer_here
from lorajob_runtime.system import key_isolation, run_lock
from lorajob_runtime.system.environment import Environment


def folder_of(spec: RunSpec, environment: Environment) -> RunFolder:
    """Where a run keeps its work on this machine. Raises ConfigError for a spec without storage."""
    return run_folder(_storage_uri(spec), spec.run_name, environment)


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """One start of a run whose folder and prefix in storage this process holds."""

    spec: RunSpec
    environment: Environment
    machine: Machine
    store: Store
    folder: RunFolder
    resume_point: ResumePoint
    limits: Limits
    signals: StopSignals
    events: EventWriter
    coordinator: Coordinator | None
    lease: Lease | None


def prepare(
    spec: RunSpec,
    environment: Environment,
    processes: int | None,
    limits: Limits,
    signals: StopSignals,
    coordinator: Coordinator | None,
    notice: Callable[[str], None],
    stack: ExitStack,
) -> PreparedRun:
    """Checks and takes hold of a run, before anything heavy is imported or downloaded. Raises what stands against it.

    `notice` shows a message to the user; there is no event log yet.
    """
    check_trainable(spec)
    machine = choose_machine(processes=processes, gpus=spec.resources.gpus, device=environment.device)
    check_products(spec, machine)
    check_memory(spec, machine, nodes=1 if coordinator is None else spec.resources.nodes)
    store = open_store(_storage_uri(spec), spec.run_name, environment)
    check_not_missing(spec.data, environment, is_done=lambda: resume.is_published(store))
    folder = folder_of(spec, environment)
    stack.enter_context(run_lock.hold(folder.lock))
    store.check(patience_seconds=limits.storage_at_start)
    lease = _hold(store, environment, folder, limits, notice, stack)
    found, warnings = _restore(spec, environment, folder, store)
    warnings += _warnings(spec, environment, coordinator)
    events = EventWriter(folder.events, folder.supervisor_log(found.attempt))
    for warning in warnings:
        events.warn(warning)
    return PreparedRun(
        spec=spec,
        environment=environment,
        machine=machine,
        store=store,
        folder=folder,
        resume_point=found,
        limits=limits,
        signals=signals,
        events=events,
        coordinator=coordinator,
        lease=lease,
    )


def _restore(spec: RunSpec, environment: Environment, folder: RunFolder, store: Store) -> tuple[ResumePoint, list[str]]:
    """Where the run goes on, and what to warn of. Raises ConfigError where it is done with other data or weights."""
    warnings: list[str] = []
    found = resume.restore(folder, store, spec, warn=warnings.append)
    if found.is_published:
        identity.refuse_others(
            found.made_with,
            _at_hand(found.made_with, spec, folder, environment),
            result=f"the finished run {spec.run_name!r}",
        )
    return found, warnings


def _warnings(spec: RunSpec, environment: Environment, coordinator: Coordinator | None) -> list[str]:
    """What a person should know of how this machine will do the run."""
    warnings = []
    if spec.resources.nodes > 1 and coordinator is None:
        warnings.append(f"resources.nodes is {spec.resources.nodes}, but `lorajob run` trains on this machine alone")
    if environment.pod is not None and spec.model.trust_remote_code and not key_isolation.can_confine():
        warnings.append("this node's kernel has no Landlock: the model's code can read the token of the pod's account")
    return warnings


def _hold(
    store: Store,
    environment: Environment,
    folder: RunFolder,
    limits: Limits,
    notice: Callable[[str], None],
    stack: ExitStack,
) -> Lease | None:
    """The run's lease on storage that other machines reach too; in a folder the lock beside it is enough."""
    from lorajob_runtime.storage.s3 import S3Store

    if not isinstance(store, S3Store):
        return None
    writer = writer_here(environment.pod, folder.work)
    return stack.enter_context(ownership.hold(store, writer, say=notice, pace=limits.lease))


def _at_hand(was: Identity, spec: RunSpec, folder: RunFolder, environment: Environment) -> Identity:
    """What this machine has of the spec's dataset and model, without fetching weights to say that a run is done.

    Where it has the model from several sources, the weights that the run was made with count.
    """
    from lorajob_runtime.fetch import cached

    models = [identity.of_model(model.path) for model in cached(spec.model, environment=environment)]
    first = models[0] if models else Identity()
    known = next((each for each in models if each.weights == was.weights), first)
    return dataclasses.replace(known, contents=dataset_at_hand(spec.data, folder.work, environment))


def _storage_uri(spec: RunSpec) -> str:
    if spec.storage.uri is None:
        raise ConfigError(
            "storage.uri is null: a run needs a place for its results, s3://bucket/prefix or a folder",
            path="storage.uri",
        )
    return spec.storage.uri
