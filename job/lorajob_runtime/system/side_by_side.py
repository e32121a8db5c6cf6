"""Work in equal shares on several processes of this machine, its results in order as if one had done it.

The shares are copies of this process: what was loaded before is theirs, and costs neither time nor memory again.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import Queue
from typing import IO, Any, NoReturn, TypeVar

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.system import processes

Result = TypeVar("Result")

_AHEAD = 2
"""Results of one share that may wait to be taken, which is what bounds memory."""


def side_by_side(shares: int, work: Callable[[int], Iterator[Result]]) -> Iterator[Result]:
    """What `work(0)`, `work(1)` and so on yield in turn, until one has no more. Share 0 is done here.

    Results are pickled. Raises what a share raises, when it is its turn; MemoryError for one that the kernel ended.
    """
    with ExitStack() as stack:
        others = [stack.enter_context(_Share(work, number)) for number in range(1, shares)]
        turns: list[Iterator[Result]] = [work(0), *others]
        while True:
            for turn in turns:
                try:
                    result = next(turn)
                except StopIteration:
                    return
                yield result


class _Share:
    """One share in a process of its own, as an iterator."""

    def __init__(self, work: Callable[[int], Iterator[Any]], number: int) -> None:
        reading, writing = os.pipe()
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            os.close(reading)
            _do(work, number, os.fdopen(writing, "wb"), parent)
        os.close(writing)
        self._waiting: Queue[tuple[str, Any]] = Queue(_AHEAD)
        self._ended = False
        threading.Thread(target=_listen, args=(os.fdopen(reading, "rb"), self._waiting), daemon=True).start()

    def __enter__(self) -> _Share:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            # whoever listens may wait to put something
            while self._waiting.get()[0] != "gone":
                pass

    def __iter__(self) -> _Share:
        return self

    def __next__(self) -> Any:
        if self._ended:
            raise StopIteration
        kind, value = self._waiting.get()
        if kind == "result":
            return value
        if kind != "gone":
            # an error, or the end: nothing comes behind it
            self._waiting.get()
        self._ended = True
        _, status = os.waitpid(self._process, 0)
        if kind == "end":
            raise StopIteration
        if kind == "refused":
            name, message, hint = value
            raise errors.error_named(name, message, hint=hint)
        if kind == "failed":
            raise RuntimeError(f"a share of the work failed:\n{value}")
        if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
            raise MemoryError("a share of the work was ended")
        raise RuntimeError(f"a share of the work ended with {os.waitstatus_to_exitcode(status)}")


def _do(work: Callable[[int], Iterator[Any]], number: int, answers: IO[bytes], parent: int) -> NoReturn:
    """Does a share in this process, which is a copy that must not go on as its original does."""
    try:
        processes.die_with_parent(parent)

        def send(kind: str, value: object) -> None:
            pickle.dump((kind, value), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()

        try:
            for result in work(number):
                send("result", result)
            send("end", None)
        except LorajobError as error:
            send("refused", (error.failure.name, error.message, error.hint))
        except BaseException:  # noqa: BLE001 - it is raised where the results are taken
            send("failed", traceback.format_exc())
    finally:
        os._exit(0)


def _listen(stream: IO[bytes], waiting: Queue[tuple[str, Any]]) -> None:
    with stream:
        while True:
            try:
                waiting.put(pickle.load(stream))  # noqa: S301 this program's own
            except (EOFError, OSError, pickle.UnpicklingError):
                break
    waiting.put(("gone", None))
