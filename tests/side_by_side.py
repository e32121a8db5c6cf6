"""Runs the tests that need a cluster beside all others: `python tests/side_by_side.py [ARGUMENTS OF PYTEST]`.

The ones mostly wait for pods and the others mostly compute, so both together take little longer than one. Where there
are two cores, two pytests share the tests of each kind, file by file (`sharing`), since much of what either does is to
wait for programs that it started. The lines of all are shown as they come, and what each has to say at its end is shown
whole. Arguments that choose the tests themselves, by files or markers, are for one pytest alone. Of
`--junitxml=NAME.xml` each part makes its own: NAME-cluster.xml, NAME-local.xml, NAME-cluster-2.xml, NAME-local-2.xml.

The exit code is pytest's: that of the part that failed, and 5 only where none had a test to run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import sharing

KINDS = {"cluster": "cluster", "local": "not cluster"}
"""Name -> marker expression."""

_NO_TESTS = 5
_ENDING = re.compile(r"=+ (ERRORS|FAILURES|warnings summary|slowest|short test summary|\d+ |no tests ran).*=")
_ALONE = frozenset({"-m", "-h", "--help", "--version", "--co", "--collect-only", "--fixtures", "--markers", "--pdb"})
"""Arguments that say which tests, or ask pytest for something else than to run them."""


@dataclass
class Part:
    """One pytest, what it has said, and how long it took."""

    name: str
    process: subprocess.Popen[str]
    ending: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0

    def show(self) -> None:
        """Prints its lines as they come, up to its summary, which is kept."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if self.ending or _ENDING.match(line):
                self.ending.append(line)
            else:
                # one call, so that no line of another part comes between
                sys.stdout.write(f"{self.name:>9}: {line}")
                sys.stdout.flush()
        self.seconds = time.monotonic() - self.began


def main(arguments: Sequence[str]) -> int:
    """Runs the tests. Returns the exit code."""
    if any(each in _ALONE or Path(each.partition("::")[0]).exists() for each in arguments):
        return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as shared:
        shares = ("", "-2") if len(os.sched_getaffinity(0)) > 1 else ("",)
        parts = [_start(kind, share, arguments, Path(shared)) for share in shares for kind in KINDS]
        _pass_on_signals(parts)
        readers = [threading.Thread(target=part.show) for part in parts]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        codes = [part.process.wait() for part in parts]
    for part, code in zip(parts, codes, strict=True):
        print(f"\n{part.name}: exit code {code} after {part.seconds:.0f} s\n{''.join(part.ending)}", end="", flush=True)
    print(f"\nall parts in {time.monotonic() - began:.0f} s")
    return exit_code(codes)


def exit_code(codes: Sequence[int]) -> int:
    """The code of all together: a part without a test to run does not count beside one that has some."""
    ran = [code for code in codes if code != _NO_TESTS]
    return next((abs(code) for code in ran if code != 0), 0) if ran else _NO_TESTS


def arguments_of(name: str, marker: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of one part."""
    own = [re.sub(r"^(--junit-?xml=.*?)(\.xml)?$", rf"\1-{name}\2", each) for each in arguments]
    # what failed last is remembered for each part, and none runs all because it knows of no failure
    return ["-m", marker, "-o", f"cache_dir=.pytest_cache/{name}", "--last-failed-no-failures=none", *own]


def _start(kind: str, share: str, arguments: Sequence[str], shared: Path) -> Part:
    # a file may have tests of both kinds
    taken = shared / kind
    taken.mkdir(exist_ok=True)
    name = kind + share
    # hundreds of programs are started, each of which would compile what it imports of ours
    inherited = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments_of(name, KINDS[kind], arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # a Ctrl-C at the terminal then reaches it from here, and once
        start_new_session=True,
        env=inherited | {sharing.VARIABLE: str(taken)},
    )
    return Part(name, process)


def _pass_on_signals(parts: Sequence[Part]) -> None:
    """Whatever is to end this ends each part as a Ctrl-C does: its fixtures are taken down, the cluster among them."""

    def pass_on(*_: object) -> None:
        for part in parts:
            with suppress(ProcessLookupError):
                os.kill(part.process.pid, signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
