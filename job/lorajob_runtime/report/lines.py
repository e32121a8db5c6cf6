"""Turns events into short lines for a person. Pure; control characters of a dataset or a model are taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lorajob_runtime.contract.errors import STOPPED, SUCCEEDED
from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.text import duration, one_line, plural, short_count, truncate
from lorajob_runtime.data.rows import unused

_SAMPLE_LENGTH = 160
_VALUE_LENGTH = 60
_OWN_FIELDS = ("event", "time", "name")

Tone = Literal["plain", "quiet", "good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and how it is meant."""

    text: str
    tone: Tone = "plain"


def lines(event: Event) -> list[Line]:
    """What a person reads of an event; nothing for phases and steps, which progress shows."""
    render = _EVENTS.get(event["event"])
    return [Line(one_line(line.text), line.tone) for line in render(event)] if render else []


def end(event: Event, seconds: float | None) -> list[Line]:
    """How the run ended, and the hint where it did not succeed."""
    after = "" if seconds is None else f" after {duration(seconds)}"
    message = one_line(str(event.get("message") or ""))
    said = f": {message}" if message else ""
    if event.get("exit_code") == SUCCEEDED.code:
        return [Line(f"done{after}{said}", "good")]
    name, code = event.get("class"), event.get("exit_code")
    if code == STOPPED.code:
        return [Line(f"stopped{after}{said}", "warning"), *_hint(event)]
    return [Line(f"failed{after} ({name}, exit code {code}){said}", "bad"), *_hint(event)]


def _hint(event: Event) -> list[Line]:
    hint = one_line(str(event.get("hint") or ""))
    return [Line(f"hint: {hint}")] if hint else []


def _evaluation(event: Event) -> list[Line]:
    return [Line(f"evaluation at step {event['step']}: loss {event['loss']:.4f}, perplexity {event['perplexity']:.4g}")]


def _checkpoint(event: Event) -> list[Line]:
    return [Line(f"checkpoint at step {event['step']}", "quiet")]


def _sample(event: Event) -> list[Line]:
    prompt = truncate(str(event["prompt"]), _SAMPLE_LENGTH // 2)
    answer = truncate(str(event["output"]), _SAMPLE_LENGTH) or "(nothing)"
    return [Line(f"sample at step {event['step']}: {prompt} -> {answer}", "quiet")]


def _report(event: Event) -> list[Line]:
    try:
        return _REPORTS.get(str(event.get("name")), _any)(event)
    except (KeyError, TypeError, ValueError):
        # written by another version: shown as it is
        return _any(event)


def _attempt(event: Event) -> list[Line]:
    return [Line(f"attempt {event['number']} on {event['where']}", "quiet")] if event["number"] > 1 else []


def _stored(event: Event) -> list[Line]:
    return [Line(f"checkpoint of step {event['step']} is in storage", "quiet")]


def _any(event: Event) -> list[Line]:
    """`name: key=value …`."""
    values = " ".join(f"{key}={_short(value)}" for key, value in event.items() if key not in _OWN_FIELDS)
    return [Line(f"{event.get('name')}: {values}", "quiet")]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = ",".join(f"{key}:{item}" for key, item in value.items())
    elif isinstance(value, list | tuple):
        value = ",".join(str(item) for item in value)
    return truncate(str(value), _VALUE_LENGTH)


def _doing(event: Event) -> list[Line]:
    return [Line(str(event["message"]), "quiet")]


def _nothing(event: Event) -> list[Line]:
    """Of what is for programs: storage's present trouble, which has warnings too, and where training stands."""
    del event
    return []


def _notice(event: Event) -> list[Line]:
    return [Line(str(event["message"]))]


def _warning(event: Event) -> list[Line]:
    return [Line(f"warning: {event['message']}", "warning")]


def _model(event: Event) -> list[Line]:
    return [Line(f"model: {event['source']}, revision {event['revision']}", "quiet")]


def _data(event: Event) -> list[Line]:
    found = [Line(f"data: {event['verdict']}")]
    used = f"{event['rows_used']} of {event['rows_selected']} rows"
    if event.get("eval_rows"):
        used += f", {event['eval_rows']} held out"
    tokens = f"{short_count(event['tokens'])} tokens an epoch, {short_count(event['target_tokens'])} of them with loss"
    found.append(Line(f"data: {used}, {tokens}, the longest row {event['max_tokens']}", "quiet"))
    for which, dropped in (("", event.get("rows_dropped")), (" of the rows held out", event.get("eval_rows_dropped"))):
        if dropped:
            found.append(Line(f"warning: left out{which}: {_left_out(dropped, event)}", "warning"))
    if truncated := event.get("rows_truncated"):
        were = "was" if truncated == 1 else "were"
        found.append(Line(f"warning: {plural(truncated, 'row')} {were} cut at data.maxLength", "warning"))
    notes = [*(event.get("notes") or ()), *(f"not used: {line}" for line in unused.lines(event.get("unused") or {}))]
    found += [Line(f"warning: {text}", "warning") for text in event.get("warnings") or ()]
    return found + [Line(f"data: {note}", "quiet") for note in notes]


def _left_out(dropped: dict[str, int], event: Event) -> str:
    """Each reason with its rows, and one of them to look at."""
    first = event.get("first_dropped") or {}
    return ", ".join(
        f"{plural(count, 'row')} ({f'row {first[reason]}: ' if reason in first else ''}{reason})"
        for reason, count in dropped.items()
    )


def _targets(event: Event) -> list[Line]:
    modules = ", ".join(f"{count} {name}" for name, count in event["targets"].items())
    trained, all_parameters = event["trained_parameters"], event["all_parameters"]
    share = (
        f"{short_count(trained)} of {short_count(all_parameters)} parameters ({100 * trained / all_parameters:.2g} %)"
    )
    found = [Line(f"LoRA: {share} in {modules}", "quiet")]
    groups = event.get("groups") or {}
    if len(groups) > 2:
        parts = ", ".join(f"{short_count(group['parameters'])} in {name}" for name, group in groups.items())
        found.append(Line(f"LoRA: {parts}", "quiet"))
    if without := event.get("without_dropout"):
        # PEFT adds such adapters to the weight itself, so there is no input of theirs to drop
        found.append(Line(f"warning: lora.dropout is 0 for the adapters of {' and '.join(without)}", "warning"))
    return found


def _decided(event: Event) -> list[Line]:
    where = plural(event["processes"], f"{event['device']} process", f"{event['device']} processes")
    every = event.get("recompute_every", 1)
    checkpointing = "with" if event["gradient_checkpointing"] else "without"
    of_layers = f" of 1 layer in {every}" if event["gradient_checkpointing"] and every > 1 else ""
    # a dataset may have fewer rows than a step would take
    batch = min(event["global_batch"], event.get("rows", event["global_batch"]))
    said = f"training: {plural(event['total_steps'], 'step')} of {plural(batch, 'row')} on {where}"
    spread = f", weights in {shards} parts" if (shards := event.get("shards", 1)) > 1 else ""
    products = f" with products in {base.upper()}" if (base := event.get("base_compute")) else ""
    attention = f", {event['attention']} attention" if event["device"] == "cuda" and "attention" in event else ""
    text = (
        f"{said}, {event['precision']}{products}{attention}{spread}, {checkpointing} gradient checkpointing{of_layers}"
    )
    lines = [Line(text, "quiet")]
    if measured := event.get("product_milliseconds"):
        figures = " and ".join(f"{milliseconds:g} ms in {name}" for name, milliseconds in measured.items())
        why = f"precision: {event['precision']}, since this processor takes {figures} for a product"
        lines.append(Line(why, "quiet"))
    return lines


_REPORTS: dict[str, Callable[[Event], list[Line]]] = {
    "attempt": _attempt,
    "stored": _stored,
    "doing": _doing,
    "storage": _nothing,
    "looked": _nothing,
    "notice": _notice,
    "warning": _warning,
    "model": _model,
    "data": _data,
    "targets": _targets,
    "decided": _decided,
}
"""Reports that have a line of their own; any other is shown as `name: key=value …`."""

_EVENTS: dict[str, Callable[[Event], list[Line]]] = {
    "evaluation": _evaluation,
    "checkpoint": _checkpoint,
    "sample": _sample,
    "report": _report,
}
