"""How long processes live: with their parent, before others when memory runs out, with all they started.

Run as a program it is a shim: `python processes.py PARENT COMMAND…` becomes COMMAND, bound to die with its parent. A
shim, because code between fork and exec of a process that has threads may hang (subprocess warns of preexec_fn).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Has the kernel kill this process when its parent is gone, however that ends.

    `parent` is the expected parent's process id: where it is gone already, this process ends at once.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def be_first_out_of_memory() -> None:
    """Has the kernel take this process before others of the container when memory runs out.

    A supervisor that survives can say what happened, and that trying again would not help.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def bound_to_parent(command: Iterable[str], *, parent: int | None) -> list[str]:
    """A command that runs `command` so that it dies with its parent; None: whoever starts it."""
    return [sys.executable, "-P", "-S", "-E", __file__, str(parent or 0), *command]


def kill_tree(process_id: int) -> None:
    """Kills a process and all that descend from it, whatever groups and sessions they made for themselves."""
    # the first one first: it would take the end of its children for an end of its own
    for each in [process_id, *descendants(process_id)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def descendants(process_id: int) -> list[int]:
    """The processes that descend from one, each behind the one that started it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # the name in parentheses may hold anything, so the fields are counted from its end
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = []
    waiting = [process_id]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _become(parent: int, command: list[str]) -> None:
    die_with_parent(parent or None)
    os.execvp(command[0], command)  # noqa: S606 the command is the supervisor's own, and there is no shell


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
