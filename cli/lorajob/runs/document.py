"""A run as a JSON document: docs/json.md and the schemas in schemas/ describe it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from lorajob.runs.pod_status import PodStatus
from lorajob.runs.run_status import RunStatus, percent
from lorajob_runtime.contract.kubernetes import Progress, TerminationMessage
from lorajob_runtime.contract.spec import API_VERSION

_PLAIN = (
    *("name", "namespace", "uid", "phase", "reason", "model", "data", "gpus", "nodes", "queue"),
    *("created", "started", "finished", "attempts", "retries"),
)
"""Fields that stand in the document as they are."""


def to_dict(status: RunStatus) -> dict[str, Any]:
    """The JSON form of one run, apiVersion and kind included: docs/json.md and schemas/run.json describe it."""
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "Run"}
    document |= {name: _plain(getattr(status, name)) for name in _PLAIN}
    document["progress"] = None if status.progress is None else _progress_dict(status, status.progress)
    document["failure"] = None if status.failure is None else _failure_dict(status.failure)
    document["storage"] = status.storage
    document["image"] = status.image
    if status.pods is not None:
        document["pods"] = [_pod_dict(each) for each in status.pods]
    return document


def list_to_dict(statuses: Sequence[RunStatus]) -> dict[str, Any]:
    """The JSON form of several runs; schemas/runlist.json describes it."""
    return {"apiVersion": API_VERSION, "kind": "RunList", "items": [to_dict(status) for status in statuses]}


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def _progress_dict(status: RunStatus, progress: Progress) -> dict[str, Any]:
    share = percent(progress)
    return {
        "isCurrent": status.is_progressing,
        "pod": progress.pod,
        "attempt": progress.attempt,
        "time": _plain(datetime.fromtimestamp(progress.time, UTC)),
        "phase": progress.phase,
        "step": progress.step,
        "totalSteps": progress.total_steps,
        "percent": None if share is None else round(share, 1),
        "epoch": progress.epoch,
        "loss": progress.loss,
        "tokensPerSecond": progress.tokens_per_second,
        "secondsLeft": progress.seconds_left,
        "checkpoint": progress.checkpoint,
        "note": progress.note,
    }


def _failure_dict(words: TerminationMessage) -> dict[str, Any]:
    return {"class": words.failure, "exitCode": words.exit_code, "message": words.message, "hint": words.hint}


def _pod_dict(each: PodStatus) -> dict[str, Any]:
    return {
        "name": each.name,
        "node": each.node,
        "state": each.state,
        "reason": each.reason,
        "host": each.host,
        "started": _plain(each.started),
        "finished": _plain(each.finished),
        "exitCode": each.exit_code,
        "created": _plain(each.created),
        "disruption": each.disruption or None,
    }
