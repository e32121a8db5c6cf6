"""Runs as text for a person: rows of a list, the page of one run, the line of a change. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from lorajob import tables
from lorajob.runs.pod_status import PodStatus
from lorajob.runs.run_status import PHASES, RunStatus, percent
from lorajob.submit.manifest.data import is_mounted
from lorajob_runtime.contract import layout
from lorajob_runtime.contract.text import duration, one_line, short_count

HEADS = ("NAME", "PHASE", "PROGRESS", "ETA", "LOSS", "AGE", "MODEL", "GPUS")
WIDE_HEADS = (*HEADS, "TOKENS/S", "ATTEMPT", "QUEUE", "DATA", "REASON")
RIGHT = ("PROGRESS", "LOSS", "GPUS", "TOKENS/S")

_COLOURS = {"Succeeded": "green", "Failed": "red", "Training": "cyan", "Publishing": "cyan", "Pending": "yellow"}
_REASON_WIDTH = 100
_POD_HEADS = ("POD", "STATE", "HOST", "AGE", "REASON")


def runs(statuses: Sequence[RunStatus], now: datetime, *, wide: bool = False, namespaces: bool = False) -> list[str]:
    """A table of runs, one a line; the phase is coloured, which click takes away where there is no terminal."""
    heads = WIDE_HEADS if wide else HEADS
    rows = [_row(status, now)[: len(heads)] for status in statuses]
    if namespaces:
        heads = ("NAMESPACE", *heads)
        rows = [[status.namespace, *row] for status, row in zip(statuses, rows, strict=True)]
    lines = tables.table(heads, rows, right=RIGHT)
    return lines[:1] + [_coloured(line, status.phase) for line, status in zip(lines[1:], statuses, strict=True)]


def page(status: RunStatus, now: datetime, *, wide: bool = False) -> list[str]:
    """Everything about one run; `wide`: what programs and administrators care for too."""
    shown = status.progress
    failure = status.failure
    lines = tables.fields(
        [
            ("Run", f"{status.name} in namespace {status.namespace}"),
            ("Phase", _coloured(_phase(status), status.phase)),
            ("Why", status.reason),
            ("Hint", one_line(failure.hint) if failure else ""),
            ("Loss", f"{shown.loss:.4f}" if shown and shown.loss is not None else ""),
            ("Speed", f"{speed} tokens/s" if (speed := _speed(status)) else ""),
            ("Checkpoint", _checkpoint(status)),
            ("Model", status.model),
            ("Data", _data(status.data)),
            ("GPUs", f"{status.gpus} on each of {status.nodes} nodes" if status.nodes > 1 else str(status.gpus)),
            ("Queue", status.queue or ""),
            ("Attempt", _attempts(status)),
            ("Submitted", _when(status.created, now)),
            ("Started", _when(status.started, now)),
            ("Ended", _when(status.finished, now)),
            ("Results", status.storage or ""),
            ("Image", status.image or ""),
            *(_details(status, now) if wide else ()),
        ]
    )
    if status.pods:
        rows = [_pod_row(each, now) for each in status.pods]
        lines += ["", *tables.table(_POD_HEADS, rows)]
    return lines


def _details(status: RunStatus, now: datetime) -> list[tuple[str, str]]:
    shown = status.progress
    found = [("UID", status.uid)]
    if shown is not None:
        reported = datetime.fromtimestamp(shown.time, UTC)
        found += [
            ("Epoch", "" if shown.epoch is None else f"{shown.epoch:.2f}"),
            ("Reported", f"{_when(reported, now)} by {shown.pod}, attempt {shown.attempt} of the run's log"),
        ]
    return found


def line(status: RunStatus) -> str:
    """The state of a run on one line, as `watch` prints it at every change."""
    text = f"{status.name}: {_phase(status)}"
    shown = status.progress
    if status.is_running and shown is not None and shown.loss is not None:
        text += f", loss {shown.loss:.4f}"
    return f"{text}: {status.reason}" if status.reason else text


def _row(status: RunStatus, now: datetime) -> list[str]:
    shown = status.progress
    share = percent(shown) if shown else None
    return [
        status.name,
        status.phase,
        "" if share is None else f"{share:.0f}%",
        _eta(status),
        "" if shown is None or shown.loss is None else f"{shown.loss:.4f}",
        tables.age(status.created, now),
        status.model,
        f"{status.nodes}x{status.gpus}" if status.nodes > 1 else str(status.gpus),
        _speed(status),
        f"{status.attempts}/{status.retries + 1}",
        status.queue or "",
        _data(status.data),
        tables.shortened(status.reason, _REASON_WIDTH),
    ]


def _pod_row(each: PodStatus, now: datetime) -> list[str]:
    return [
        each.name,
        each.state if each.exit_code in (None, 0) else f"{each.state} ({each.exit_code})",
        each.host or "",
        tables.age(each.created or each.started, now),
        tables.shortened(each.reason, _REASON_WIDTH),
    ]


def _phase(status: RunStatus) -> str:
    """`Training, 43% (312/702 steps), ETA 12m 30s`."""
    parts = [status.phase]
    shown = status.progress
    share = percent(shown) if shown else None
    if shown is not None and share is not None and status.phase != "Succeeded":
        parts.append(f"{share:.0f}% ({shown.step}/{shown.total_steps} steps)")
    if eta := _eta(status):
        parts.append(f"ETA {eta}")
    return ", ".join(parts)


def _eta(status: RunStatus) -> str:
    """Time left; what a pod that has ended expected is of no use."""
    left = status.progress.seconds_left if status.progress is not None else None
    return duration(left) if left is not None and status.phase == "Training" else ""


def _speed(status: RunStatus) -> str:
    speed = status.progress.tokens_per_second if status.progress is not None else None
    return short_count(speed) if speed and status.phase == "Training" else ""


def _checkpoint(status: RunStatus) -> str:
    shown = status.progress
    return layout.step_name(shown.checkpoint) if shown is not None and shown.checkpoint is not None else ""


def _attempts(status: RunStatus) -> str:
    if status.attempts == 0:
        return f"none yet of {status.retries + 1}"
    text = f"{status.attempts} of {status.retries + 1}"
    if status.progress is not None and status.progress.attempt not in (0, status.attempts):
        # the log counts every start of this name, also those that count for nothing here
        number = status.progress.attempt
        text += f" (number {number} in the log: `lorajob logs {status.name} --attempt {number}`)"
    return text


def _data(source: str | None) -> str:
    """The dataset by its own name, without the place where the pods find it."""
    if source is None:
        return ""
    if is_mounted(source):
        return source.rpartition("/")[2].removesuffix(".gz")
    return layout.data_file(source) or source


def _when(time: datetime | None, now: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({tables.age(time, now)} ago)" if time is not None else ""


def _coloured(text: str, phase: str) -> str:
    colour = _COLOURS.get(phase)
    return text.replace(phase, click.style(phase, fg=colour), 1) if colour and phase in PHASES else text
