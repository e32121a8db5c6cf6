"""Shows a run that is followed: text that refreshes on a terminal, else a line or a JSON object for every change."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import datetime

import click

from lorajob import tables
from lorajob.cluster import Cluster
from lorajob.runs import page
from lorajob.runs.document import to_dict
from lorajob.runs.follow import exit_code_of, follow
from lorajob.runs.run_status import RunStatus
from lorajob_runtime.contract.errors import SUCCEEDED
from lorajob_runtime.contract.text import encodable


def watch(cluster: Cluster, name: str, *, form: str = "table", timeout_seconds: float | None = None) -> int:
    """Shows a run until its end, or until Ctrl-C, which leaves the run alone. `form`: table or json.

    Returns 0 for one that succeeded or was detached from, 100 failed, 103 cancelled. Raises what `follow` raises.
    """
    show = _json if form == "json" else Block().show if sys.stdout.isatty() else Lines().show
    status: RunStatus | None = None
    try:
        for status in follow(cluster, name, timeout_seconds=timeout_seconds, say=say):
            show(status, cluster.now())
    except KeyboardInterrupt:
        say(f"detached: run {name} keeps running; `lorajob watch {name}` shows it again")
        return SUCCEEDED.code
    if status is None:
        return SUCCEEDED.code
    for line in closing_lines(status) if form != "json" else ():
        click.echo(line)
    return exit_code_of(status)


def closing_lines(status: RunStatus) -> list[str]:
    """What to do after the end of a run."""
    if status.phase == "Succeeded" and status.storage:
        return [f"adapter: {status.storage}/adapter"]
    if status.failure is not None:
        hints = [f"hint:    {status.failure.hint}"] if status.failure.hint else []
        return [*hints, f"logs:    lorajob logs {status.name}"]
    return []


def say(text: str) -> None:
    """A word beside the output, on stderr."""
    click.echo(f"lorajob: {text}", err=True)


def _json(status: RunStatus, _: datetime) -> None:
    click.echo(tables.json_line(to_dict(status)))


class Lines:
    """A line for every change that a person would see."""

    def __init__(self, write: Callable[[Sequence[str]], object] = tables.show) -> None:
        self._write = write
        self._said = ""

    def show(self, status: RunStatus, now: datetime) -> None:
        """Prints the line of the status, unless it says what the last one did."""
        said = page.line(status)
        if said != self._said:
            self._write([f"{now:%H:%M:%S} {said}"])
            self._said = said


class Block:
    """Lines of a terminal that are written over at every change."""

    def __init__(self, write: Callable[[str], object] = click.echo) -> None:
        self._write = write
        self._height = 0

    def show(self, status: RunStatus, now: datetime) -> None:
        """Replaces the lines by those of the status, cut to what the terminal can show."""
        columns, rows = shutil.get_terminal_size()
        lines = [_cut(line, columns - 1) for line in page.page(status, now)][: rows - 1]
        back = f"\x1b[{self._height}F\x1b[J" if self._height else ""
        self._write(back + encodable("\n".join(lines), sys.stdout.encoding))
        self._height = len(lines)


def _cut(line: str, columns: int) -> str:
    """A line that would wrap makes the block higher than is counted."""
    plain = click.unstyle(line)
    return line if tables.width(plain) <= columns else tables.clip(plain, columns)
