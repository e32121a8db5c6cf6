"""`lorajob cancel`, `suspend` and `resume`: each changes one field of the run's Job, with one request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lorajob.cluster import FIELD_MANAGER, Cluster
from lorajob.errors import UsageError
from lorajob.runs import kueue, lookup
from lorajob.runs import status as statuses
from lorajob.runs.run_status import RunStatus
from lorajob_runtime.contract.kubernetes import CANCELLED_ANNOTATION


def cancel(cluster: Cluster, name: str, *, dry_run: bool = False) -> str:
    """Stops a run for good; its record, checkpoints and logs stay. Returns what to tell the user.

    A run that has ended stays as it is, and that is no error: it does not run. Raises NotFound, ClusterError.
    """
    run = _status(cluster, name)
    if run.is_terminal:
        return f"run {name} has already {_ended(run)}"
    if run.queue is not None:
        kueue.deactivate(cluster, run.uid, dry_run=dry_run)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _change(cluster, run, suspend=True, cancelled=now, dry_run=dry_run)
    return _said(
        f"run {name} cancelled: its checkpoints stay, and `lorajob retry {name}` resumes from the last one", dry_run
    )


def suspend(cluster: Cluster, name: str, *, dry_run: bool = False) -> str:
    """Stops a run, which saves a checkpoint first, and frees its GPUs until it is resumed.

    Raises UsageError for a run that has ended, or whose queue decides when it runs.
    """
    run = _status(cluster, name)
    _refuse_ended(run, "suspended")
    _refuse_queued(run)
    if run.phase == "Suspended":
        return f"run {name} is already suspended"
    _change(cluster, run, suspend=True, dry_run=dry_run)
    return _said(
        f"run {name} suspended: `lorajob resume {name}` continues from the checkpoint that it saves now", dry_run
    )


def resume(cluster: Cluster, name: str, *, dry_run: bool = False) -> str:
    """Resumes a suspended run. Raises UsageError for a run that has ended, or that was cancelled."""
    run = _status(cluster, name)
    _refuse_ended(run, "resumed")
    _refuse_queued(run)
    if run.phase != "Suspended":
        return f"run {name} is not suspended: it is {run.phase}"
    _change(cluster, run, suspend=False, dry_run=dry_run)
    return _said(f"run {name} resumed: `lorajob watch {name}` follows it", dry_run)


def _status(cluster: Cluster, name: str) -> RunStatus:
    return statuses.from_job(lookup.job_of(cluster, name), cluster.now())


def _change(
    cluster: Cluster, run: RunStatus, *, suspend: bool, cancelled: str | None = None, dry_run: bool = False
) -> None:
    metadata: dict[str, Any] = {"uid": run.uid}
    if cancelled is not None:
        metadata["annotations"] = {CANCELLED_ANNOTATION: cancelled}
    elif not suspend:
        # of a Job that was cancelled, and then started by other means
        metadata["annotations"] = {CANCELLED_ANNOTATION: None}
    body = {"metadata": metadata, "spec": {"suspend": suspend}}
    cluster.patch(cluster.jobs(run.name), body, fieldManager=FIELD_MANAGER, dryRun="All" if dry_run else None)


def _refuse_ended(run: RunStatus, what: str) -> None:
    if run.phase in ("Failed", "Cancelled"):
        raise UsageError(
            f"run {run.name} has {_ended(run)}: it can't be {what}", hint=f"`lorajob retry {run.name}` starts it again"
        )
    if run.is_terminal:
        raise UsageError(f"run {run.name} has {_ended(run)}: it can't be {what}")


def _refuse_queued(run: RunStatus) -> None:
    if run.queue is not None:
        raise UsageError(
            f"run {run.name} is in queue {run.queue}, which alone decides when it runs",
            hint=f"`lorajob cancel {run.name}` removes it from the queue",
        )


def _ended(run: RunStatus) -> str:
    return {"Succeeded": "succeeded", "Failed": "failed", "Cancelled": "been cancelled"}[run.phase]


def _said(text: str, dry_run: bool) -> str:
    return f"{text} (dry run: nothing was changed)" if dry_run else text
