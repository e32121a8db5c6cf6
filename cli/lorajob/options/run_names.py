"""The names of runs on the command line: completed from the cluster, and acted on each for itself."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from lorajob.errors import UsageError
from lorajob_runtime.contract.errors import LorajobError

COMPLETION_TIMEOUT = "2s"
"""A shell that completes a word is not held up for longer."""


_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class RunName(click.ParamType[str]):
    """The name of a run in the namespace. `strict`: what can be none is refused at once."""

    name = "name"

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return check(value) if self._strict else value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from lorajob.options.cluster_options import connect_from
        from lorajob.runs import lookup

        taken = ctx.params.get(param.name or "") or ()
        asked = {"kubeconfig": None, "kube_context": None, "namespace": None, **ctx.params}
        try:
            with connect_from({**asked, "request_timeout": COMPLETION_TIMEOUT}) as cluster:
                found = [status for status in lookup.every(cluster) if status.name.startswith(incomplete)]
        except LorajobError:
            # a shell has no place for an error; the command itself will say it
            return []
        return [CompletionItem(each.name, help=each.phase) for each in found if each.name not in taken]


run_name = click.argument("name", type=RunName())


def _some_name(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, of which one at least may be there. Raises UsageError."""
    if not any(_can_be(name) for name in names):
        check(names[0])
    return names


run_names = click.argument(
    "names", type=RunName(strict=False), nargs=-1, required=True, metavar="NAME...", callback=_some_name
)
"""Of several, one that can be no name does not keep the others from being acted on: see `tried`."""


def _can_be(name: str) -> bool:
    return len(name) <= 253 and _OBJECT_NAME.fullmatch(name) is not None


def check(name: str) -> str:
    """The name itself. Raises UsageError for what no object can be called, whatever is there to look for."""
    if not _can_be(name):
        raise UsageError(f"{name!r} is not the name of a run: it must be lower-case letters, digits and -")
    return name


def each(names: Sequence[str], act: Callable[[str], Any], *, at_once: int = 1) -> None:
    """Does the same for every run, also after one that it fails for. Raises what went wrong, at the end."""
    raise_all(tried(names, act, at_once=at_once))


def tried(names: Sequence[str], act: Callable[[str], Any], *, at_once: int = 1) -> list[LorajobError]:
    """Does the same for every run, for up to `at_once` of them side by side. Returns the errors, in the order of names.

    An interrupt ends the waiting for those that are under way.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    once = list(dict.fromkeys(names))
    for name in once:
        todo.put(name)
    errors: dict[str, LorajobError] = {}
    crashes: list[Exception] = []

    def work() -> None:
        while not crashes:
            try:
                name = todo.get_nowait()
            except queue.Empty:
                return
            try:
                act(check(name))
            except LorajobError as error:
                errors[name] = error
            except Exception as crash:  # noqa: BLE001 a thread hands it to the one that waits for it
                crashes.append(crash)

    if at_once == 1 or len(once) == 1:
        work()
    else:
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(once)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if crashes:
        raise crashes[0]
    return [errors[name] for name in once if name in errors]


def raise_all(errors: Sequence[LorajobError]) -> None:
    """Raises the errors as one, of the class of the first; does nothing where there are none."""
    if len(errors) > 1:
        raise type(errors[0])("; ".join(error.message for error in errors), hint=errors[0].hint)
    if errors:
        raise errors[0]
