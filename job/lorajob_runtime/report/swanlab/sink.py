"""Sends a run to SwanLab: one id across restarts, no step twice, and no fault of SwanLab's becomes one of the run's.

The SDK runs in a child process that can be killed (see docs/decisions.md). This side decides: what is sent, what goes
on offline, what the user is told. It is fed the whole event log after every restart, so that nothing is kept but the
run's id and how far the server has it: what lies unsent in the run's folder is written there again.
"""

from __future__ import annotations

import random
import shlex
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import INTERRUPTED, STOPPED, SUCCEEDED
from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.report.sink import Sink, SinkContext, SinkType
from lorajob_runtime.report.swanlab import run_state
from lorajob_runtime.report.swanlab.chart_points import Point, Points
from lorajob_runtime.system import environment
from lorajob_runtime.system.child_process import KEYS, Child, Message

Mode = Literal["online", "local", "offline", "disabled"]

_MODULE = "lorajob_runtime.report.swanlab.child"
_FOLDER = "swanlog"
_API_KEY = "SWANLAB_API_KEY"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long SwanLab may take, in seconds."""

    start: float = 60.0
    """To log in and make or find the run; the SDK itself tries for about 15 s when its host refuses."""
    finish: float = 20.0
    """To send what is left when the run ends."""
    offline: float = 8.0
    """Of `finish`, kept for writing everything to the disk when the server did not answer until then."""


class SwanLab:
    """Sends a run's points to SwanLab's cloud or a host of one's own, or writes them here for later."""

    name = "swanlab"

    def __init__(
        self,
        spec: RunSpec,
        *,
        folder: RunFolder,
        variables: Mapping[str, str],
        is_in_pod: bool = False,
        warn: Callable[[str], None],
        notify: Callable[[str], None] | None = None,
        limits: Limits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`variables` are those that the SDK gets, the API key among them.

        `warn` gets one line for what went wrong, with the command that mends it; `notify` where to look.
        """
        self._spec = spec
        self._folder = folder
        self._log_dir = folder.report(_FOLDER).resolve()
        self._log = folder.report_log(self.name)
        self._variables = variables
        self._has_key = bool(variables.get(_API_KEY))
        self._is_in_pod = is_in_pod
        self._warn = warn
        self._notify = notify
        self._limits = limits or Limits()
        self._rng = rng or random.SystemRandom()
        self._mode: Mode = _mode(spec, has_key=self._has_key)
        self._points = Points(spec.train.logging_steps)
        self._unsent: deque[tuple[int, Point]] = deque()
        self._number = 0
        self._end: Event = {}
        self._child: Child | None = None
        self._is_ready = False
        self._start_deadline = 0.0

    def handle(self, event: Event) -> None:
        """Takes one event. Raises OSError when the run's folder cannot be written."""
        if self._mode == "disabled":
            return
        if self._child is None:
            self._begin()
        self.idle()
        if event["event"] in ("end", "phase", "step"):
            # the log of a resumed run holds the ends of earlier starts
            self._end = event if event["event"] == "end" else {}
        for point in self._points.take(event):
            if not self._state.has(point):
                self._number += 1
                self._unsent.append((self._number, point))
                self._send(self._number, point)

    def idle(self) -> None:
        """Sees what the SDK has to say. Raises OSError as `handle` does."""
        if self._child is not None and self._mode != "disabled":
            self._see_answers()
            if not self._is_ready and time.monotonic() > self._start_deadline:
                self._go_on_offline(f"it did not start within {self._limits.start:g} s")

    def close(self, limit_seconds: float) -> None:
        """Lets the SDK finish within the limit, then ends it. With 0 it is ended at once."""
        if self._child is None:
            return
        if limit_seconds > 0:
            self._finish(time.monotonic() + min(limit_seconds, self._limits.finish))
        self._mode = "disabled"
        self._child.kill()

    def _begin(self) -> None:
        self._state = run_state.load(self._folder.sinks, self._rng)
        if self._mode == "offline" and self._spec.report.swanlab.mode == "auto" and not self._has_key:
            self._warn(f"SwanLab: {_API_KEY} is not set, so this run is kept offline; to send it: {self._sync}")
        self._start()

    def _start(self) -> None:
        """Starts the SDK in a folder of its own that holds nothing from before."""
        shutil.rmtree(self._log_dir, ignore_errors=True)
        self._log_dir.mkdir(parents=True)
        self._child = Child(_MODULE, folder=self._log_dir, log=self._log, variables=environment.for_training())
        self._is_ready = False
        self._start_deadline = time.monotonic() + self._limits.start
        self._child.send({"start": self._settings(), KEYS: dict(self._variables)})

    def _settings(self) -> Message:
        wanted = self._spec.report.swanlab
        return {
            "mode": self._mode,
            "project": wanted.project,
            "workspace": wanted.workspace,
            "name": wanted.experiment or self._spec.run_name,
            "id": self._state.id,
            "log_dir": str(self._log_dir),
            "run_dir": self._run_dir.name,
            "config": specs.to_dict(self._spec, defaults=True),
        }

    @property
    def _run_dir(self) -> Path:
        return self._log_dir / f"run-{self._state.id}"

    @property
    def _sync(self) -> str:
        if self._is_in_pod:
            # the folder goes with the pod; what is in it reaches storage
            place = f"{(self._spec.storage.uri or '').rstrip('/')}/{self._spec.run_name}/{_FOLDER}"
            return f"swanlab sync {self._run_dir.name} --id {self._state.id}, in a copy of {place}"
        return f"swanlab sync {shlex.quote(str(self._run_dir))} --id {self._state.id}"

    def _send(self, number: int, point: Point) -> None:
        if self._child is not None:
            texts = [asdict(text) for text in point.texts]
            self._child.send({"log": {"step": point.step, "values": point.values, "texts": texts}, "number": number})

    def _see_answers(self, deadline: float | None = None) -> bool:
        """Acts on what the child says; waits for the next answer until the deadline. Whether it has finished."""
        while self._child is not None and (answer := self._child.answer(deadline)) is not None:
            deadline = None
            if "ready" in answer:
                self._is_ready = True
                self._tell_where(answer["ready"])
            elif "failed" in answer:
                self._go_on_offline(str(answer["failed"]))
            elif "confirmed" in answer:
                self._confirm(int(answer["confirmed"]))
            elif "finished" in answer:
                return True
        if self._child is not None and self._child.is_gone:
            self._go_on_offline(f"its process ended unexpectedly (see {self._log})")
        return False

    def _go_on_offline(self, reason: str) -> None:
        """Writes here what the server does not have yet, and goes on so; where that is what failed, gives up."""
        if self._mode == "disabled":
            return
        if self._child is not None:
            self._child.kill()
        if self._mode == "offline":
            self._mode = "disabled"
            self._warn(f"SwanLab is off: {reason}")
            return
        self._mode = "offline"
        self._warn(f"SwanLab: {reason}; this run continues offline; to send it: {self._sync}")
        self._start()
        for number, point in self._unsent:
            self._send(number, point)

    def _confirm(self, number: int) -> None:
        while self._unsent and self._unsent[0][0] <= number:
            self._state.confirm(self._unsent.popleft()[1])
        self._state.save()

    def _finish(self, deadline: float) -> None:
        """Asks the child to finish, and the one that takes over where that fails."""
        asked: Child | None = None
        while self._child is not None and self._mode != "disabled" and time.monotonic() < deadline:
            if asked is not self._child:
                asked = self._child
                asked.send({"finish": _ending(self._end)})
            may_start = self._is_ready or self._mode == "offline"
            patience = deadline if may_start else deadline - self._limits.offline
            if time.monotonic() >= patience:
                self._go_on_offline("it did not start before the run ended")
            elif self._see_answers(patience):
                if self._mode == "online":
                    self._confirm(self._number)
                return
        if self._mode == "online":
            self._warn(f"SwanLab did not take the last values in time; to send them: {self._sync}")
        elif self._mode != "disabled":
            self._warn(f"SwanLab did not finish writing {self._run_dir} in time")

    def _tell_where(self, ready: dict[str, Any]) -> None:
        if self._notify is None:
            return
        if ready.get("url"):
            self._notify(f"SwanLab: {ready['url']}")
        elif self._mode == "local":
            self._notify(f"SwanLab: swanlab watch {shlex.quote(str(self._log_dir))}")


def _mode(spec: RunSpec, *, has_key: bool) -> Mode:
    wanted = spec.report.swanlab.mode
    if wanted == "auto":
        return "online" if has_key else "offline"
    return "online" if wanted == "cloud" else wanted


def _ending(event: Event) -> Message:
    """How SwanLab shows the end: what can go on is `aborted`, and a run that is resumed becomes running again."""
    code = event.get("exit_code", STOPPED.code)
    if code == SUCCEEDED.code:
        return {"state": "success", "error": None}
    state = "aborted" if code in (STOPPED.code, INTERRUPTED.code) else "crashed"
    return {"state": state, "error": str(event.get("message") or event.get("class") or "the run did not reach its end")}


def _open(context: SinkContext) -> Sink:
    return SwanLab(
        context.spec,
        folder=context.folder,
        variables=context.variables,
        is_in_pod=context.environment.pod is not None,
        warn=context.warn,
        notify=context.notify,
    )


SWANLAB = SinkType(name=SwanLab.name, open=_open, folder=_FOLDER, variables=("SWANLAB_",))
