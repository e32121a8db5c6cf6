"""Lists every sink that a run can report to, one line each, and opens those that a start of a run uses."""

from __future__ import annotations

from collections.abc import Callable

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.contract.text import whole_error
from lorajob_runtime.report.console import CONSOLE
from lorajob_runtime.report.job_progress import JOB_PROGRESS
from lorajob_runtime.report.jsonl import JSON_LINES
from lorajob_runtime.report.sink import Output, Sink, SinkContext, SinkType
from lorajob_runtime.report.swanlab.sink import SWANLAB
from lorajob_runtime.system import environment as environment_module
from lorajob_runtime.system.environment import Environment

SINKS: tuple[SinkType, ...] = (
    CONSOLE,
    JSON_LINES,
    JOB_PROGRESS,
    SWANLAB,
)


def open(
    spec: RunSpec,
    folder: RunFolder,
    environment: Environment,
    *,
    output: Output,
    shows_here: bool,
    warn: Callable[[str], None],
    notify: Callable[[str], None],
) -> list[Sink]:
    """Opens the sinks that this start of a run uses: those that show it here, or those that send it elsewhere.

    `warn` and `notify` get the sinks' own messages, one line each. A sink that cannot be opened is warned of and left
    out: a report never ends a run.
    """
    opened = []
    for each in SINKS:
        if each.shows_here != shows_here:
            continue
        context = SinkContext(
            spec=spec,
            folder=folder,
            environment=environment,
            variables=environment_module.for_report(each.variables),
            output=output,
            warn=warn,
            notify=notify,
        )
        try:
            sink = each.open(context)
        except Exception as error:  # noqa: BLE001 a sink may fail in any way, and training goes on
            warn(f"report to {each.name} is off: {whole_error(error)}")
            continue
        if sink is not None:
            opened.append(sink)
    return opened


def folders() -> tuple[str, ...]:
    """The folders that sinks keep below the run's, of which storage gets copies."""
    return tuple(each.folder for each in SINKS if each.folder)
