"""Runs one start of a run to its end: fetch, data, train, publish. In any case what is finished reaches storage.

Training runs in other processes. They and the supervisor write to the event log, and the reports read it.
"""

from __future__ import annotations

import dataclasses
import socket
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
    StoppedError,
    TakenOverError,
)
from lorajob_runtime.contract.layout import ADAPTER, step_name
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.contract.termination import end_event_values, to_error
from lorajob_runtime.report.sink import Output, Sink
from lorajob_runtime.run import launcher, start
from lorajob_runtime.run.coordinator import Coordinator
from lorajob_runtime.run.delivery import Delivery
from lorajob_runtime.run.event_stream import EventTailer
from lorajob_runtime.run.host_checks import inspector, localize
from lorajob_runtime.run.launcher import WORKER, Training
from lorajob_runtime.run.limits import Limits, limits_of
from lorajob_runtime.run.reports import Reports
from lorajob_runtime.run.signals import StopSignals
from lorajob_runtime.run.start import PreparedRun
from lorajob_runtime.run.training_watch import TrainingWatch
from lorajob_runtime.storage.store import is_s3
from lorajob_runtime.storage.uploader import Uploader
from lorajob_runtime.system.environment import Environment

if TYPE_CHECKING:
    from lorajob_runtime.fetch import FetchedModel

_FORCED_END_SECONDS = 1.0
"""How long the reports get to finish after a second Ctrl-C."""


def run(
    spec: RunSpec,
    environment: Environment,
    *,
    output: Output = "text",
    listeners: Sequence[Sink] = (),
    processes: int | None = None,
    limits: Limits | None = None,
    worker: str = WORKER,
    coordinator: Coordinator | None = None,
) -> int:
    """Runs, or goes on with, the run that `spec` describes. Returns the exit code of its class.

    `output` says what reads the output of this process. `listeners` are sinks of the caller's own; how the run ended is
    the last event they get, but for warnings of trouble that a report had with ending. `processes` None: as many as the
    spec asks for GPUs, which then must be there; a number: that many, on the CPU where no GPU is. `coordinator` is the
    way to the other nodes of a run of several; a PeerError's code says that they, not this one, made it end. `limits`
    None: those that are right here. Runs in the main thread, which takes the signals.
    """
    limits = limits or limits_of(environment)
    reports = Reports(spec, environment, output=output, listeners=listeners)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals(echo_seconds=limits.echo))
        try:
            with signals.interruptible():
                prepared = start.prepare(
                    spec, environment, processes, limits, signals, coordinator, reports.notice, stack
                )
        except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 here an error becomes an exit code
            place = environment.work if is_s3(spec.storage.uri or "") else spec.storage.uri
            return _end_early(reports, limits, to_error(caught, forced=signals.forced, disk=str(place)))
        attempt = Attempt(**vars(prepared))
        if attempt.resume_point.is_published:
            return _end_early(reports, limits, None, message=f"already done: the adapter is {attempt.adapter_uri}")
        code = attempt.run(reports, worker)
        # after the loss of another node the caller goes on, but not after a signal that came while this attempt ended
        return STOPPED.code if code == PEER.code and signals.requested else code


def _end_early(reports: Reports, limits: Limits, error: LorajobError | None, *, message: str = "") -> int:
    """Tells the reports of an end before there was a log to write it to: the run may be another process's."""
    reports.end_early({"event": "end"} | end_event_values(error, message), limits.sinks_at_end)
    return (error.failure if error else SUCCEEDED).code


@dataclass(frozen=True, kw_only=True)
class Attempt(PreparedRun):
    """One start of a run, from here to its end."""

    @property
    def adapter_uri(self) -> str:
        return f"{self.store.uri}/{ADAPTER}"

    def run(self, reports: Reports, worker: str) -> int:
        """Makes the attempt, uploads what is finished and tells how it ended. Returns the exit code."""
        reports.start(self.folder, self.events)
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
        # before the first upload, which takes the attempt's log with it
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
        """Uploads the lines that say how it ended. A failure here changes nothing about that."""

        def upload() -> None:
            late = uploader.drain(lambda: self.limits.sinks_at_end, left_seconds=delivery.left_seconds)
            if late is not None:
                raise late

        if (late := self._error_of(upload)) is not None:
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
        with ExitStack() as ends:
            with self.signals.interruptible():
                events.add("phase", name="fetch")
                model = self._fetch()
                events.add("phase", name="data")
                training = self._begin_early(model, worker, ends)
                self._prepare_data(model)
            if not self.resume_point.is_trained:
                self._gather()
                events.add("phase", name="train")
                events.doing("loads the model")
                if self.coordinator is not None:
                    self.coordinator.begin(self.resume_point.attempt)
                self._train(training or self._begin(model, worker), tailer)
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

    def _begin_early(self, model: FetchedModel, worker: str, ends: ExitStack) -> Training | None:
        """Training processes that import their libraries while the dataset is prepared; killed when `ends` closes.

        None where nothing is to be trained, where other nodes come first, and for workers that would not wait.
        """
        if self.resume_point.is_trained or self.coordinator is not None or worker != WORKER:
            return None
        training = self._begin(model, worker, awaits_data=True)
        ends.callback(training.kill)
        return training

    def _begin(self, model: FetchedModel, worker: str, *, awaits_data: bool = False) -> Training:
        return launcher.begin(
            self.spec,
            model,
            self.machine,
            self.folder,
            attempt=self.resume_point.attempt,
            resume_step=self.resume_point.step,
            evaluation_pending=self.resume_point.evaluation_pending,
            worker=worker,
            nodes=1 if self.coordinator is None else self.spec.resources.nodes,
            awaits_data=awaits_data,
        )

    def _train(self, training: Training, tailer: EventTailer) -> None:
        training.data_is_there()
        TrainingWatch(
            folder=self.folder,
            limits=self.limits,
            signals=self.signals,
            events=self.events,
            tailer=tailer,
            coordinator=self.coordinator,
            check_lease=self._check_lease,
            is_in_pod=self.environment.pod is not None,
        ).wait(training)

    def _check_lease(self) -> None:
        if self.lease is not None:
            self.lease.check()

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
        """Why what is finished is not in storage; None where it is, or where another process now uploads it."""
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
        is_forced = isinstance(error, InterruptedByUserError)
        with suppress(KeyboardInterrupt):
            try:
                self.events.add("end", **values)
            except OSError:
                # a full disk takes no more lines; the reports get this one directly
                tailer.stop()
                reports.post({"event": "end"} | values)
            tailer.stop()

            def limit() -> float:
                return _FORCED_END_SECONDS if is_forced else self.limits.for_reports(self.signals)

            reports.close_sent(limit())
            # what went wrong with that is still shown
            tailer.catch_up()
            reports.close_shown(limit())
        self.events.close()
