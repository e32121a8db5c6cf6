"""Runs programs of the tests on several processes that share one start: `programs/forked.py` and what talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from lorajob_runtime.contract.layout import RunFolder

_PROGRAM = Path(__file__).parent / "programs" / "forked.py"


class ForkedRanks:
    """A process that has imported everything and forks ranks on demand. Ends with the `with` statement."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "ranks.log"

    def __enter__(self) -> ForkedRanks:
        self._begin()
        return self

    def _begin(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        # its ranks die with it
        self._process.kill()
        self._process.communicate()

    def train(self, folder: RunFolder, *, processes: int = 1) -> None:
        """Trains a run folder to its end."""
        self.run("train_many", [str(folder.root)], processes=processes)

    def end_of(self, folder: RunFolder) -> int:
        """The exit code of a training process of its own for a run folder."""
        (code,) = self._codes("worker", [str(folder.root)], processes=1)
        return code

    def run(self, program: str, *arguments: list[str], processes: int) -> None:
        """Runs a program to its end; `arguments` are those of each node, on which there are so many processes."""
        codes = self._codes(program, *arguments, processes=processes)
        assert not any(codes), f"{program} ended with {codes}:\n{self._log.read_text()[-4000:]}"

    def _codes(self, program: str, *arguments: list[str], processes: int) -> list[int]:
        asked = {"program": program, "arguments": arguments, "processes": processes, "log": str(self._log)}
        try:
            return self._answer(json.dumps(asked) + "\n")
        except BaseException:
            # a test that ran out of time leaves no answer to the next one
            self._end()
            self._begin()
            raise

    def _answer(self, line: str) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes
