"""Runs the tests that need a cluster beside all others: `python tests/side_by_side.py [ARGUMENTS OF PYTEST]`.

The ones mostly wait for pods and the others mostly compute, so both together take little longer than one. The lines of
both are shown as they come, and what each has to say at its end is shown whole. Arguments that choose the tests
themselves, by files or markers, are for one pytest alone. Of `--junitxml=NAME.xml` each half makes its own,
NAME-cluster.xml and NAME-local.xml.

The exit code is pytest's: that of the half that failed, and 5 only where neither had a test to run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HALVES = {"cluster": "cluster", "local": "not cluster"}
"""Name -> marker expression."""

_NO_TESTS = 5
_ENDING = re.compile(r"=+ (ERRORS|FAILURES|warnings summary|slowest|short test summary|\d+ |no tests ran).*=")
_ALONE = frozenset({"-m", "-h", "--help", "--version", "--co", "--collect-only", "--fixtures", "--markers", "--pdb"})
"""Arguments that say which tests, or ask pytest for something else than to run them."""


@dataclass
class Half:
    """One pytest and what it has said."""

    name: str
    process: subprocess.Popen[str]
    ending: list[str] = field(default_factory=list)

    def show(self) -> None:
        """Prints its lines as they come, up to its summary, which is kept."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if self.ending or _ENDING.match(line):
                self.ending.append(line)
            else:
                # one call, so that no line of the other half comes between
                sys.stdout.write(f"{self.name:>7}: {line}")
                sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Runs the tests. Returns the exit code."""
    if any(each in _ALONE or Path(each.partition("::")[0]).exists() for each in arguments):
        return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
    began = time.monotonic()
    halves = [_start(name, marker, arguments) for name, marker in HALVES.items()]
    _pass_on_signals(halves)
    readers = [threading.Thread(target=half.show) for half in halves]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    codes = [half.process.wait() for half in halves]
    for half, code in zip(halves, codes, strict=True):
        print(f"\n{half.name}: exit code {code}\n{''.join(half.ending)}", end="", flush=True)
    print(f"\nboth halves in {time.monotonic() - began:.0f} s")
    return exit_code(codes)


def exit_code(codes: Sequence[int]) -> int:
    """The code of all together: a half without a test to run does not count beside one that has some."""
    ran = [code for code in codes if code != _NO_TESTS]
    return next((abs(code) for code in ran if code != 0), 0) if ran else _NO_TESTS


def arguments_of(name: str, marker: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of one half."""
    own = [re.sub(r"^(--junit-?xml=.*?)(\.xml)?$", rf"\1-{name}\2", each) for each in arguments]
    # what failed last is remembered for each half
    return ["-m", marker, "-o", f"cache_dir=.pytest_cache/{name}", *own]


def _start(name: str, marker: str, arguments: Sequence[str]) -> Half:
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments_of(name, marker, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # a Ctrl-C at the terminal then reaches it from here, and once
        start_new_session=True,
    )
    return Half(name, process)


def _pass_on_signals(halves: Sequence[Half]) -> None:
    """Whatever is to end this ends each half as a Ctrl-C does: its fixtures are taken down, the cluster among them."""

    def pass_on(*_: object) -> None:
        for half in halves:
            with suppress(ProcessLookupError):
                os.kill(half.process.pid, signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
