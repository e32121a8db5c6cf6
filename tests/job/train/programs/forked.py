"""Runs programs on several processes that are forked, not started: importing takes far longer than training here.

Reads one JSON object a line, `{"program": "train_many", "arguments": [[…], …], "processes": 2, "log": PATH}`, with the
arguments of the processes of each node, and answers each with the exit codes of its ranks. What torchrun tells its
workers in their environment, they find in it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

from lorajob_runtime.system import processes

# PEFT would import it, which takes seconds
sys.modules["bitsandbytes"] = None  # type: ignore[assignment]

NAMES = (
    "train_many",
    "load_sharded",
    "answer_sharded",
    "reference_trainer",
    "train_short_of_memory",
    "killed_while_saving",
    "worker",
)
PROGRAMS = {name: importlib.import_module(name) for name in NAMES}


def serve() -> None:
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


def run(asked: dict[str, Any]) -> list[int]:
    """The exit codes of all ranks. When one fails, the others are ended: they would wait for it for ever."""
    here, nodes = asked["processes"], len(asked["arguments"])
    port = free_port()
    children: dict[int, int] = {}
    for rank in range(here * nodes):
        node, local_rank = divmod(rank, here)
        place = {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": here * nodes, "LOCAL_WORLD_SIZE": here}
        place |= {"GROUP_RANK": node, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        child = os.fork()
        if child == 0:
            become(asked["program"], asked["arguments"][node], place, asked["log"])
        children[child] = rank
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        child, status = os.wait()
        codes[children[child]] = os.waitstatus_to_exitcode(status)
        if status:
            for other, rank in children.items():
                if rank not in codes:
                    os.kill(other, signal.SIGKILL)
    return [codes[rank] for rank in sorted(codes)]


def become(program: str, arguments: list[str], place: dict[str, Any], log: str) -> None:
    """Runs a program in this forked process, which ends with it."""
    code = 1
    try:
        processes.die_with_parent()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update({name: str(value) for name, value in place.items()})
        code = PROGRAMS[program].main(arguments) or 0
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    serve()
