"""One run from start to end: fetch, data, train, publish; and whatever happens, what is finished reaches storage.

Training is other processes. What it and the supervisor have to say goes through the event log; the reports read that.
"""

from __future__ import annotations

import dataclasses
import math
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorajob_runtime import __version__, identity, launch, lock, private, restore
from lorajob_runtime.checks import (
    Machine,
    check_memory,
    check_not_missing,
    check_trainable,
    choose_machine,
    dataset_at_hand,
    inspector,
    localize,
)
from lorajob_runtime.endings import as_error, end_values
from lorajob_runtime.environment import Environment
from lorajob_runtime.events import Event
from lorajob_runtime.exits import (
    PEER,
    STOPPED,
    SUCCEEDED,
    UNEXPECTED,
    ConfigError,
    InterruptedByUserError,
    LorajobError,
    PeerError,
    StalledError,
    StoppedError,
)
from lorajob_runtime.identity import Identity
from lorajob_runtime.interrupts import Interrupts
from lorajob_runtime.journal import Follower, Journal
from lorajob_runtime.launch import WORKER, Training
from lorajob_runtime.layout import ADAPTER, RunFolder, step_name
from lorajob_runtime.link import Leader
from lorajob_runtime.report import Sink
from lorajob_runtime.report.fanout import Fanout
from lorajob_runtime.report.swanlab import SwanLab
from lorajob_runtime.restore import Start
from lorajob_runtime.spec import RunSpec
from lorajob_runtime.store import Store, is_s3, open_store, run_folder
from lorajob_runtime.upload import Pace, Uploader

if TYPE_CHECKING:
    from lorajob_runtime.fetch import FetchedModel

_HURRY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long the supervisor waits for what, in seconds."""

    storage_at_start: float = 30
    storage_at_end: float = 120
    """While uploads fail; one that gets on is waited for."""
    stall: float = 1800
    """Without any event while training."""
    sinks_at_end: float = 20
    poll: float = 0.2
    pace: Pace = Pace()  # noqa: RUF009 frozen


def folder_of(spec: RunSpec, environment: Environment) -> RunFolder:
    """Where a run keeps its work on this machine. Raises ConfigError for a spec without storage."""
    return run_folder(_storage_uri(spec), spec.run_name, environment)


def run(
    spec: RunSpec,
    environment: Environment,
    *,
    sinks: Sequence[Sink] = (),
    processes: int | None = None,
    limits: Limits = Limits(),
    worker: str = WORKER,
    link: Leader | None = None,
) -> int:
    """Runs, or goes on with, the run that `spec` describes. Returns the exit code of its class.

    `sinks` are the caller's own reports; SwanLab is the spec's and joins them. How the run ended is the last event they
    get, but for warnings of trouble that SwanLab had with ending. `processes` None: as many as the spec asks for GPUs,
    which then must be there; a number: that many, on the CPU where no GPU is. `link` is the way to the other nodes of
    a run of several; a PeerError's code says that they, not this one, made it end. Runs in the main thread, which takes
    the signals.
    """
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        try:
            with interrupts.raising():
                attempt = _get_ready(spec, environment, processes, limits, interrupts, link, stack)
        except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 here an error becomes an exit code
            place = environment.work if is_s3(spec.storage.uri or "") else spec.storage.uri
            return _end_early(sinks, limits, as_error(caught, interrupts, disk=str(place)))
        if attempt.start.is_published:
            return _end_early(sinks, limits, None, message=f"already done: the adapter is {attempt.adapter_uri}")
        code = attempt.run(sinks, worker)
        # whoever goes on after the loss of another node must not miss a signal that came while this attempt ended
        return STOPPED.code if code == PEER.code and interrupts.requested else code


def _get_ready(
    spec: RunSpec,
    environment: Environment,
    processes: int | None,
    limits: Limits,
    interrupts: Interrupts,
    link: Leader | None,
    stack: ExitStack,
) -> Attempt:
    """Everything that can go wrong at once goes wrong here, before anything heavy is imported or downloaded."""
    check_trainable(spec)
    machine = choose_machine(processes=processes, gpus=spec.resources.gpus, device=environment.device)
    check_memory(spec, machine, nodes=1 if link is None else spec.resources.nodes)
    store = open_store(_storage_uri(spec), spec.run_name, environment)
    check_not_missing(spec.data, environment, is_done=lambda: restore.is_published(store))
    folder = folder_of(spec, environment)
    stack.enter_context(lock.hold(folder.lock))
    store.check(patience_seconds=limits.storage_at_start)
    warnings: list[str] = []
    start = restore.restore(folder, store, spec, warn=warnings.append)
    if start.is_published:
        identity.refuse_others(
            start.made_with, _at_hand(spec, folder, environment), result=f"the finished run {spec.run_name!r}"
        )
    if spec.resources.nodes > 1 and link is None:
        warnings.append(f"resources.nodes is {spec.resources.nodes}: this machine trains alone, as one node")
    if environment.pod is not None and spec.model.trust_remote_code and not private.can_confine():
        warnings.append("this node's kernel has no Landlock: the model's code can read the token of the pod's account")
    journal = Journal(folder.events, folder.supervisor_log(start.attempt))
    for warning in warnings:
        journal.warn(warning)
    return Attempt(
        spec=spec,
        environment=environment,
        machine=machine,
        store=store,
        folder=folder,
        start=start,
        limits=limits,
        interrupts=interrupts,
        journal=journal,
        link=link,
    )


def _at_hand(spec: RunSpec, folder: RunFolder, environment: Environment) -> Identity:
    """What this machine has of the spec's dataset and model, without fetching weights to say that a run is done."""
    from lorajob_runtime.fetch import at_hand

    model = at_hand(spec.model, environment=environment)
    known = Identity() if model is None else identity.of_model(model.path)
    return dataclasses.replace(known, contents=dataset_at_hand(spec.data, folder.work, environment))


def _end_early(sinks: Sequence[Sink], limits: Limits, error: LorajobError | None, *, message: str = "") -> int:
    """Tells the reports of an end before there was a log to write it to: the run may be another process's."""
    fanout = Fanout(sinks, warn=lambda _: None)
    fanout.post({"event": "end"} | end_values(error, message))
    fanout.close(limits.sinks_at_end)
    return (error.failure if error else SUCCEEDED).code


@dataclass(frozen=True, kw_only=True, slots=True)
class Reports:
    """The sinks that show the run here, and those that send it elsewhere and may have something to say as they end."""

    shown: Fanout
    sent: Fanout

    def post(self, event: Event) -> None:
        """Queues an event for all of them."""
        self.shown.post(event)
        self.sent.post(event)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a run whose folder this process holds."""

    spec: RunSpec
    environment: Environment
    machine: Machine
    store: Store
    folder: RunFolder
    start: Start
    limits: Limits
    interrupts: Interrupts
    journal: Journal
    link: Leader | None

    @property
    def adapter_uri(self) -> str:
        return f"{self.store.uri}/{ADAPTER}"

    def run(self, sinks: Sequence[Sink], worker: str) -> int:
        """The attempt, its end told and its results brought home. Returns the exit code."""
        swanlab = SwanLab(
            self.spec,
            folder=self.folder,
            environment=self.environment,
            warn=self.journal.warn,
            notify=self.journal.notice,
        )
        reports = Reports(shown=Fanout(sinks, self.journal.warn), sent=Fanout([swanlab], self.journal.warn))
        follower = Follower(self.folder.events, reports.post, poll_seconds=self.limits.poll)
        keep = self.spec.train.keep_checkpoints
        uploader = Uploader(
            self.store,
            self.folder,
            keep=keep,
            pace=self.limits.pace,
            warn=self.journal.warn,
            stored=self._tell_stored,
        )
        # before the first upload, which is to bring the attempt's log
        error = self._error_of(self._tell_start)
        follower.start()
        uploader.start()
        error = error or self._error_of(lambda: self._work(follower, uploader, worker))
        if isinstance(error, PeerError) and self.interrupts.requested:
            error = StoppedError(f"stopped; {error.message}")
        failed = self._bring_home(error, uploader)
        error = self._verdict(error, failed)
        self._tell_end(error, follower, reports)
        if failed is None:
            # the log's last lines, which say how it ended
            with suppress(KeyboardInterrupt):
                uploader.drain(self.limits.sinks_at_end)
        uploader.close()
        return (error.failure if error else SUCCEEDED).code

    def _tell_start(self) -> None:
        """Makes the attempt's log, whose number the next attempt counts on from."""
        here = self.environment.pod.name if self.environment.pod else socket.gethostname()
        self.journal.note(f"attempt {self.start.attempt} of lorajob {__version__} on {here}")
        self.journal.add("report", name="attempt", number=self.start.attempt, where=here)

    def _tell_stored(self, step: int) -> None:
        # what is lost on a full disk, or after the log was closed, is only news
        with suppress(OSError, ValueError):
            self.journal.add("report", name="stored", step=step)

    def _work(self, follower: Follower, uploader: Uploader, worker: str) -> None:
        """The story of a run."""
        journal = self.journal
        if self.start.step is not None:
            journal.notice(f"going on from the checkpoint of step {self.start.step}")
        with self.interrupts.raising():
            journal.add("phase", name="fetch")
            model = self._fetch()
            journal.add("phase", name="data")
            self._prepare_data(model)
        if not self.start.is_trained:
            self._gather()
            journal.add("phase", name="train")
            journal.doing("loads the model")
            self._train(model, follower, worker)
        journal.add("phase", name="publish")
        self._publish(model)
        uploader.adapter_is_ready()

    def _fetch(self) -> FetchedModel:
        from lorajob_runtime.fetch import fetch

        inspect = inspector(self.spec, self.machine, nodes=1 if self.link is None else self.spec.resources.nodes)
        model = fetch(self.spec.model, environment=self.environment, notify=self.journal.notice, inspect=inspect)
        self.journal.add("report", name="model", source=model.source, revision=model.revision, path=str(model.path))
        return model

    def _prepare_data(self, model: FetchedModel) -> None:
        from lorajob_runtime.data.process import prepare

        data = localize(self.spec.data, self.folder.work, self.environment)
        spec = dataclasses.replace(self.spec, data=data)
        log = self.folder.supervisor_log(self.start.attempt)
        report = prepare(spec, model_path=model.path, folder=self.folder.data, log=log)
        if self.start.step is not None:
            now = dataclasses.replace(identity.of_model(model.path), tokens=report.get("fingerprint"))
            identity.refuse_others(self.start.made_with, now, result=f"checkpoint {step_name(self.start.step)}")
        self.journal.add("report", name="data", **report)

    def _gather(self) -> None:
        """Waits for the other nodes: nothing trains before all of them are there."""
        if self.link is not None:
            with self.interrupts.raising():
                self.link.gather(patience_seconds=self.limits.stall, say=self.journal.doing)

    def _train(self, model: FetchedModel, follower: Follower, worker: str) -> None:
        if self.link is not None:
            self.link.begin(self.start.attempt)
        training = launch.begin(
            self.spec,
            model,
            self.machine,
            self.folder,
            attempt=self.start.attempt,
            resume_step=self.start.step,
            worker=worker,
            nodes=1 if self.link is None else self.spec.resources.nodes,
        )
        try:
            self._watch(training, follower)
        finally:
            training.kill()
            if self.link is not None and training.error is not None:
                self.link.give_up()
        if training.error is not None:
            raise self._root_cause(training.error)

    def _root_cause(self, error: LorajobError) -> LorajobError:
        """What ended training here, or on another node where that is what ended it here."""
        if self.link is None or error.failure not in (PEER, STOPPED):
            return error
        if error.failure is STOPPED:
            return error if self.interrupts.requested else PeerError(f"another node was asked to stop: {error.message}")
        return self.link.loss(within_seconds=_HURRY_SECONDS * 5) or error

    def _watch(self, training: Training, follower: Follower) -> None:
        """Waits for training to end; passes a wish to stop on, and gives up on training that shows no life."""
        is_asked = False
        follower.listen_anew()
        while not training.ended(within_seconds=self.limits.poll):
            if self.interrupts.requested and not is_asked:
                training.ask_to_stop()
                self.journal.notice("stopping after this step with a checkpoint; Ctrl-C again ends at once")
                is_asked = True
            if self.link is not None and (lost := self.link.lost()) is not None:
                if training.ended(within_seconds=_HURRY_SECONDS) and (error := training.error) is not None:
                    raise self._root_cause(error)
                raise lost
            if min(follower.silent_seconds(), self._seconds_since_heartbeat()) > self.limits.stall:
                raise StalledError(f"training gave no sign of life for {self.limits.stall:g} s")

    def _seconds_since_heartbeat(self) -> float:
        """Since training gave a sign of life that is no event."""
        try:
            return time.time() - self.folder.alive.stat().st_mtime
        except OSError:
            return math.inf

    def _publish(self, model: FetchedModel) -> None:
        from lorajob_runtime.publish import publish

        publish(self.folder, spec=self.spec, model=model)

    def _error_of(self, work: Callable[[], None]) -> LorajobError | None:
        """What ended a piece of work; None when it was done."""
        try:
            work()
        except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 here an error becomes an exit code
            return self._explain(caught)
        return None

    def _explain(self, caught: BaseException) -> LorajobError:
        error = as_error(caught, self.interrupts, disk=str(self.folder.root))
        if error.failure is UNEXPECTED and caught is not error:
            self.journal.trace(caught)
            return LorajobError(f"{error.message}; more in {self.folder.supervisor_log(self.start.attempt)}")
        return error

    def _bring_home(self, error: LorajobError | None, uploader: Uploader) -> LorajobError | None:
        """Waits, within a limit, until all that is finished is in storage. Returns why it is not."""
        if isinstance(error, InterruptedByUserError):
            return error
        is_told = self.interrupts.requested

        def tell_once() -> None:
            nonlocal is_told
            if self.interrupts.requested and not is_told:
                self.journal.notice("finishing the upload; Ctrl-C again ends at once")
                is_told = True

        try:
            return uploader.drain(self.limits.storage_at_end, tick=tell_once)
        except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 here an error becomes an exit code
            return self._explain(caught)

    def _verdict(self, error: LorajobError | None, failed: LorajobError | None) -> LorajobError | None:
        """What the run ended with: an error of its own comes before results that did not reach storage."""
        if failed is None or isinstance(failed, InterruptedByUserError):
            return failed or error
        message = (
            f"{failed.message}; finished checkpoints are kept in {self.folder.checkpoints}, "
            "and running the same command again uploads them"
        )
        if error is None or error.failure is STOPPED:
            return type(failed)(message, hint=failed.hint)
        self.journal.warn(message)
        return error

    def _tell_end(self, error: LorajobError | None, follower: Follower, reports: Reports) -> None:
        """Writes how the run ended and lets the reports finish. Another Ctrl-C cuts it short."""
        values = end_values(error, f"the adapter is {self.adapter_uri}")
        is_hurried = isinstance(error, InterruptedByUserError)
        with suppress(KeyboardInterrupt):
            try:
                self.journal.add("end", **values)
            except OSError:
                # a full disk takes no more lines; the reports get this one all the same
                follower.stop()
                reports.post({"event": "end"} | values)
            follower.stop()
            limit = _HURRY_SECONDS if is_hurried else self.limits.sinks_at_end
            reports.sent.close(limit)
            # what went wrong with that is still shown
            follower.catch_up()
            reports.shown.close(limit)
        self.journal.close()


def _storage_uri(spec: RunSpec) -> str:
    if spec.storage.uri is None:
        raise ConfigError("storage.uri is null: a run needs a place for its results, s3://bucket/prefix or a folder")
    return spec.storage.uri
