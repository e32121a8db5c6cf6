"""How attempts of a run ended, and why it has failed for good. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from lorajob.runs import pod_failures
from lorajob.runs.pod_status import PodStatus, moment
from lorajob.runs.run_facts import RunFacts
from lorajob_runtime.contract import errors
from lorajob_runtime.contract.kubernetes import Progress, TerminationMessage
from lorajob_runtime.contract.text import duration, one_line, truncate

Object = Mapping[str, Any]

RETRY_HINT = "`lorajob retry {name}` resumes from the last checkpoint"

_MESSAGE_BEFORE_FAILURE = timedelta(seconds=60)
"""How long before the Job failed its last pod may have reported its end: a supervisor does so just before it exits."""
_FIRST_PAUSE_SECONDS = 10
_LONGEST_PAUSE_SECONDS = 600
"""Of the Job controller, before it makes another pod: doubled with every pod that failed."""
_SHORT = 120


def why_failed(facts: RunFacts) -> TerminationMessage:
    """Why a run has failed for good: what its last attempt said, else what Kubernetes says."""
    condition = facts.conditions.get("Failed") or facts.conditions.get("FailureTarget") or {}
    reason, message = condition.get("reason", ""), one_line(condition.get("message", ""))
    if reason == "DeadlineExceeded":
        limit = duration(float(facts.spec.get("activeDeadlineSeconds") or 0))
        hint = f"`lorajob retry {facts.name} --set resources.timeout=…` resumes from the last checkpoint"
        return TerminationMessage(
            exit_code=124, failure="timeout", message=f"ran longer than its limit of {limit}", hint=hint
        )
    named = re.search(r"for pod \S+/(\S+) failed with exit code (\d+)", message)
    ended = moment(condition.get("lastTransitionTime"))
    if words := last_attempt(facts, ended, pod_name=named[1] if named else None):
        return _with_next_step(words, facts.name)
    hint = RETRY_HINT.format(name=facts.name)
    if named:
        words = pod_failures.of_code(int(named[2]), f"a pod ended with exit code {named[2]}")
        return _with_next_step(words, facts.name)
    if reason == "BackoffLimitExceeded":
        gone = f"its pods are gone, and {min(facts.failed, facts.retries + 1)} of 1+{facts.retries} attempts failed"
        return TerminationMessage(
            exit_code=1, failure="lost", message=gone, hint=f"{hint}; `lorajob logs {facts.name}` shows more"
        )
    return TerminationMessage(
        exit_code=1, failure="lost", message=message or "its Job failed without a message", hint=hint
    )


def last_attempt(facts: RunFacts, ended: datetime | None, *, pod_name: str | None = None) -> TerminationMessage | None:
    """What the last attempt said: its pods, else the report if it is that attempt's.

    `ended` is when it ended, as far as the Job tells; `pod_name` the pod whose end the Job names. Of each node only the
    newest pod counts, since another one is of an attempt before.
    """
    newest = [each for each in facts.newest_pods if each.state == "Failed" and each.termination_message is not None]
    named = [each for each in facts.pods or () if each.name == pod_name and each.termination_message is not None]
    failed = named or newest
    report = facts.report if facts.report is not None and facts.report.exit_code else None
    if failed:
        last = max((each.finished for each in failed if each.finished), default=None)
        if report is not None and report.pod not in {each.name for each in facts.pods or ()} and _is_after(facts, last):
            # the pod that reported its end last was deleted after it
            return reported(report)
        together = [each for each in failed if last is None or each.finished is None or _near(each.finished, last)]
        return _cause(together)
    if report is None or pod_name not in (None, report.pod):
        return None
    is_last = ended is None or facts.report_time is None or ended - facts.report_time < _MESSAGE_BEFORE_FAILURE
    return reported(report) if is_last or pod_name else None


def reported(report: Progress) -> TerminationMessage:
    """How a run ended by its own report."""
    code = report.exit_code or errors.UNEXPECTED.code
    known = errors.from_code(code)
    return TerminationMessage(
        exit_code=code,
        failure=report.failure or known.name,
        message=one_line(report.message) or f"ended with exit code {code}",
        hint=report.hint or known.hint,
    )


def ending(facts: RunFacts, report: Progress) -> str:
    """A run whose supervisor has reported how its attempt ended, and whose pod is still running."""
    words = reported(report)
    said = f"{words.failure}: {truncate(words.message, _SHORT)}"
    if words.exit_code == errors.PEER.code and facts.nodes > 1:
        return f"another node was lost ({said}); training resumes from the last checkpoint when it is back"
    if words.exit_code == errors.STOPPED.code:
        disruption = next((each.disruption for each in facts.newest_pods if each.name == report.pod), "")
        why = disruption or truncate(words.message, _SHORT)
        return f"its attempt was stopped ({why}) and its pod is ending"
    return f"its attempt has failed ({said}) and its pod is ending"


def between_attempts(facts: RunFacts) -> str:
    """What ended the attempt before the one that is to come, whether it counts, and what comes."""
    gone = [each for each in facts.newest_pods if each.state == "Failed"]
    held = next((each for each in gone if each.others), None)
    if held is not None and held.termination_message is not None:
        said = f"{held.termination_message.failure}: {truncate(held.termination_message.message, _SHORT)}"
        others = ", ".join(held.others)
        return f"attempt {facts.attempts} failed ({said}); its pod ends when its other containers do: {others}"
    if gone and not any(each.counts for each in gone):
        why = next((each.disruption or each.reason for each in gone), "")
        text = f"attempt {facts.attempts} was interrupted ({truncate(why, _SHORT)}), which does not count"
        return f"{text}; it resumes from the last checkpoint {_next(facts)}"
    words = last_attempt(facts, facts.changed if facts.pods is None else None)
    said = f" ({words.failure}: {truncate(words.message, _SHORT)})" if words else ""
    text = f"attempt {min(facts.failed, facts.retries + 1)} {'was lost' if words is None else 'failed'}{said}"
    if words is not None and errors.from_name(words.failure).final:
        return f"{text}; it is not retried"
    if facts.failed > facts.retries:
        return f"{text}; no retry is left"
    left = max(0, facts.retries - facts.failed)
    return f"{text}; the next starts {_next(facts)}, {left} of {facts.retries} retries left after it"


def _next(facts: RunFacts) -> str:
    ended = max(facts.failed, sum(each.state == "Failed" for each in facts.pods or ()))
    if ended <= 1:
        return "soon"
    pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(ended - 1, 10), _LONGEST_PAUSE_SECONDS)
    return f"after a pause of up to {duration(pause)}"


def _cause(together: Sequence[PodStatus]) -> TerminationMessage:
    return min((each.termination_message for each in together if each.termination_message is not None), key=_telling)


def _telling(words: TerminationMessage) -> int:
    """Smaller for the cause than for its consequences: of a group, one node fails and the others lose it."""
    known = errors.from_code(words.exit_code)
    if known.final and known.code not in (errors.UNEXPECTED.code, errors.INTERRUPTED.code):
        return 0
    return 1 if known.code not in (errors.UNEXPECTED.code, errors.STOPPED.code, errors.INTERRUPTED.code) else 2


def _with_next_step(words: TerminationMessage, name: str) -> TerminationMessage:
    """Nothing retries this run by itself, although the hint of its class may say so."""
    known = errors.from_name(words.failure)
    if words.hint and (known.final or known is errors.UNEXPECTED or words.hint != known.hint):
        return words
    return dataclasses.replace(words, hint=RETRY_HINT.format(name=name))


def _near(one: datetime, other: datetime) -> bool:
    return abs(one - other) < _MESSAGE_BEFORE_FAILURE


def _is_after(facts: RunFacts, ended: datetime | None) -> bool:
    return ended is not None and facts.report_time is not None and facts.report_time > ended
