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

from lorajob_runtime import __version__
from lorajob_runtime.contract import identity
from lorajob_runtime.contract.errors import (
    PEER,
    STOPPED,
    SUCCEEDED,
    UNEXPECTED,
    InterruptedByUserError,
    LorajobError,
    PeerError,
    StalledError,
    StoppedError,
    TakenOverError,
)
from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.layout import ADAPTER, step_name
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.contract.termination import end_event_values, to_error
from lorajob_runtime.report.fanout import Fanout
from lorajob_runtime.report.sink import Sink
from lorajob_runtime.report.swanlab.sink import SwanLab
from lorajob_runtime.run import launcher, start
from lorajob_runtime.run.coordinator import Coordinator
from lorajob_runtime.run.delivery import Delivery, at_once
from lorajob_runtime.run.event_stream import EventTailer
from lorajob_runtime.run.host_checks import inspector, localize
from lorajob_runtime.run.launcher import WORKER, Training
from lorajob_runtime.run.limits import Limits, limits_of
from lorajob_runtime.run.signals import StopSignals
from lorajob_runtime.run.start import PreparedRun
from lorajob_runtime.storage.store import is_s3
from lorajob_runtime.storage.uploader import Uploader
from lorajob_runtime.system.environment import Environment

if TYPE_CHECKING:
    from lorajob_runtime.fetch import FetchedModel

_HURRY_SECONDS = 1.0
_LOST_NODE_SECONDS = 5.0
"""How long a failure that may be the echo of another node's waits for what that node has to say."""


def run(
    spec: RunSpec,
    environment: Environment,
    *,
    sinks: Sequence[Sink] = (),
    processes: int | None = None,
    limits: Limits | None = None,
    worker: str = WORKER,
    coordinator: Coordinator | None = None,
) -> int:
    """Runs, or goes on with, the run that `spec` describes. Returns the exit code of its class.

    `sinks` are the caller's own reports; SwanLab is the spec's and joins them. How the run ended is the last event they
    get, but for warnings of trouble that SwanLab had with ending. `processes` None: as many as the spec asks for GPUs,
    which then must be there; a number: that many, on the CPU where no GPU is. `coordinator` is the way to the other
    nodes of a run of several; a PeerError's code says that they, not this one, made it end. Runs in the main thread,
    which takes the signals. `limits` None: those that are right here.
    """
    limits = limits or limits_of(environment)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        try:
            with signals.interruptible():
                prepared = start.prepare(spec, environment, processes, limits, signals, coordinator, sinks, stack)
        except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 here an error becomes an exit code
            place = environment.work if is_s3(spec.storage.uri or "") else spec.storage.uri
            return _end_early(sinks, limits, to_error(caught, forced=signals.forced, disk=str(place)))
        attempt = Attempt(**vars(prepared))
        if attempt.resume_point.is_published:
            return _end_early(sinks, limits, None, message=f"already done: the adapter is {attempt.adapter_uri}")
        code = attempt.run(sinks, worker)
        # whoever goes on after the loss of another node must not miss a signal that came while this attempt ended
        return STOPPED.code if code == PEER.code and signals.requested else code


def _end_early(sinks: Sequence[Sink], limits: Limits, error: LorajobError | None, *, message: str = "") -> int:
    """Tells the reports of an end before there was a log to write it to: the run may be another process's."""
    fanout = Fanout(sinks, warn=lambda _: None)
    fanout.post({"event": "end"} | end_event_values(error, message))
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
class Attempt(PreparedRun):
    """One start of a run, from here to its end."""

    @property
    def adapter_uri(self) -> str:
        return f"{self.store.uri}/{ADAPTER}"

    def run(self, sinks: Sequence[Sink], worker: str) -> int:
        """The attempt, its end told and its results brought home. Returns the exit code."""
        swanlab = SwanLab(
            self.spec,
            folder=self.folder,
            environment=self.environment,
            warn=self.events.warn,
            notify=self.events.notice,
        )
        reports = Reports(shown=Fanout(sinks, self.events.warn), sent=Fanout([swanlab], self.events.warn))
        tailer = EventTailer(self.folder.events, reports.post, poll_seconds=self.limits.poll)
        delivery = Delivery(
            folder=self.folder,
            store=self.store,
            events=self.events,
            signals=self.signals,
            limits=self.limits,
            is_in_pod=self.environment.pod is not None,
            lease=self.lease,
            stored_step=self.resume_point.step,
        )
        uploader = delivery.uploader(self.spec.train.keep_checkpoints)
        # before the first upload, which is to bring the attempt's log
        error = self._error_of(self._tell_start)
        tailer.start()
        uploader.start()
        error = error or self._error_of(lambda: self._work(tailer, uploader, worker))
        if isinstance(error, PeerError) and self.signals.requested:
            error = StoppedError(f"stopped; {error.message}")
        failed = self._flush_uploads(error, delivery, uploader)
        error = delivery.final_error(error, failed)
        self._tell_end(error, tailer, reports)
        if failed is None and not isinstance(error, TakenOverError):
            self._flush_last_lines(delivery, uploader)
        uploader.close()
        return (error.failure if error else SUCCEEDED).code

    def _flush_last_lines(self, delivery: Delivery, uploader: Uploader) -> None:
        """Those that say how it ended. That is told already and holds, whatever keeps them from storage now."""

        def bring() -> None:
            late = uploader.drain(lambda: self.limits.sinks_at_end, left_seconds=delivery.left_seconds)
            if late is not None:
                raise late

        if (late := self._error_of(bring)) is not None:
            self.events.note(f"the last lines of the log are not in storage: {late.message}")

    def _tell_start(self) -> None:
        """Makes the attempt's log, whose number the next attempt counts on from."""
        here = self.environment.pod.name if self.environment.pod else socket.gethostname()
        self.events.note(f"attempt {self.resume_point.attempt} of lorajob {__version__} on {here}")
        self.events.add("report", name="attempt", number=self.resume_point.attempt, where=here)

    def _work(self, tailer: EventTailer, uploader: Uploader, worker: str) -> None:
        """The story of a run."""
        events = self.events
        if self.resume_point.step is not None:
            events.notice(f"going on from the checkpoint of step {self.resume_point.step}")
        with self.signals.interruptible():
            events.add("phase", name="fetch")
            model = self._fetch()
            events.add("phase", name="data")
            self._prepare_data(model)
        if not self.resume_point.is_trained:
            self._gather()
            events.add("phase", name="train")
            events.doing("loads the model")
            self._train(model, tailer, worker)
        self._check_lease()
        events.add("phase", name="publish")
        self._publish(model)
        uploader.adapter_is_ready()

    def _fetch(self) -> FetchedModel:
        from lorajob_runtime.fetch import fetch

        inspect = inspector(self.spec, self.machine, nodes=1 if self.coordinator is None else self.spec.resources.nodes)
        model = fetch(self.spec.model, environment=self.environment, notify=self.events.notice, inspect=inspect)
        self.events.add("report", name="model", source=model.source, revision=model.revision, path=str(model.path))
        return model

    def _prepare_data(self, model: FetchedModel) -> None:
        from lorajob_runtime.data.process import prepare

        data = localize(self.spec.data, self.folder.work, self.environment)
        spec = dataclasses.replace(self.spec, data=data)
        log = self.folder.supervisor_log(self.resume_point.attempt)
        report = prepare(spec, model_path=model.path, folder=self.folder.data, log=log)
        if self.resume_point.step is not None:
            now = identity.with_data(identity.of_model(model.path), report)
            identity.refuse_others(
                self.resume_point.made_with, now, result=f"checkpoint {step_name(self.resume_point.step)}"
            )
        self.events.add("report", name="data", **report)

    def _gather(self) -> None:
        """Waits for the other nodes: nothing trains before all of them are there."""
        if self.coordinator is not None:
            with self.signals.interruptible():
                self.coordinator.gather(patience_seconds=self.limits.stall, say=self.events.doing)

    def _train(self, model: FetchedModel, tailer: EventTailer, worker: str) -> None:
        if self.coordinator is not None:
            self.coordinator.begin(self.resume_point.attempt)
        training = launcher.begin(
            self.spec,
            model,
            self.machine,
            self.folder,
            attempt=self.resume_point.attempt,
            resume_step=self.resume_point.step,
            evaluation_pending=self.resume_point.evaluation_pending,
            worker=worker,
            nodes=1 if self.coordinator is None else self.spec.resources.nodes,
        )
        try:
            self._watch(training, tailer)
        finally:
            training.kill()
            if self.coordinator is not None and training.error is not None:
                self.coordinator.give_up()
        if training.error is not None:
            cause = self._root_cause(training.error)
            if self.coordinator is not None and cause.failure is not PEER:
                self.coordinator.take_blame()
            raise cause

    def _root_cause(self, error: LorajobError) -> LorajobError:
        """What ended training here, or on another node where that is what ended it here."""
        if self.coordinator is None or error.failure not in (PEER, STOPPED):
            return error
        if error.failure is STOPPED:
            return error if self.signals.requested else PeerError(f"another node was asked to stop: {error.message}")
        return self.coordinator.loss(within_seconds=_LOST_NODE_SECONDS) or error

    def _watch(self, training: Training, tailer: EventTailer) -> None:
        """Waits for training to end; passes a wish to stop on, and gives up on training that shows no life."""
        is_asked = False
        tailer.listen_anew()
        while not training.ended(within_seconds=self.limits.poll):
            if self.signals.requested and not is_asked:
                training.ask_to_stop()
                how = at_once(is_in_pod=self.environment.pod is not None)
                self.events.notice(f"stopping after this step with a checkpoint{how}")
                is_asked = True
            self._check_lease()
            if self.coordinator is not None and (lost := self.coordinator.lost()) is not None:
                if training.ended(within_seconds=_HURRY_SECONDS) and (error := training.error) is not None:
                    raise self._root_cause(error)
                raise lost
            if min(tailer.silent_seconds(), self._seconds_since_heartbeat()) > self.limits.stall:
                raise StalledError(f"training gave no sign of life for {self.limits.stall:g} s")

    def _check_lease(self) -> None:
        if self.lease is not None:
            self.lease.check()

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
        error = to_error(caught, forced=self.signals.forced, disk=str(self.folder.root))
        if error.failure is UNEXPECTED and caught is not error:
            self.events.trace(caught)
            return LorajobError(f"{error.message}; more in {self.folder.supervisor_log(self.resume_point.attempt)}")
        return error

    def _flush_uploads(self, error: LorajobError | None, delivery: Delivery, uploader: Uploader) -> LorajobError | None:
        """Why what is finished is not in storage; None where it is, or is another process's to bring there."""
        if isinstance(error, InterruptedByUserError):
            return error
        if isinstance(error, TakenOverError):
            return None
        try:
            return delivery.wait(uploader, error=error)
        except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 here an error becomes an exit code
            return self._explain(caught)

    def _tell_end(self, error: LorajobError | None, tailer: EventTailer, reports: Reports) -> None:
        """Writes how the run ended and lets the reports finish. Another Ctrl-C cuts it short."""
        is_in_pod = self.environment.pod is not None
        values = end_event_values(error, f"the adapter is {self.adapter_uri}", is_in_pod=is_in_pod)
        is_hurried = isinstance(error, InterruptedByUserError)
        with suppress(KeyboardInterrupt):
            try:
                self.events.add("end", **values)
            except OSError:
                # a full disk takes no more lines; the reports get this one all the same
                tailer.stop()
                reports.post({"event": "end"} | values)
            tailer.stop()

            def limit() -> float:
                return _HURRY_SECONDS if is_hurried else self.limits.for_reports(self.signals)

            reports.sent.close(limit())
            # what went wrong with that is still shown
            tailer.catch_up()
            reports.shown.close(limit())
        self.events.close()
