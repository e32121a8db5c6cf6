"""Is the container's entry point: `python -m lorajob_runtime SPEC_FILE [--processes N]` runs the spec in a file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError, LorajobError
from lorajob_runtime.contract.termination import to_termination_message
from lorajob_runtime.run import pod, supervisor, termination_message
from lorajob_runtime.system import environment, key_isolation


def main(arguments: Sequence[str]) -> int:
    """Runs the spec in a file. Returns the exit code of the run's class."""
    parser = argparse.ArgumentParser(prog="python -m lorajob_runtime", description="Runs one fine-tuning run.")
    parser.add_argument("spec", type=Path, help="a RunSpec as JSON")
    parser.add_argument("--processes", type=int, help="training processes, in place of the spec's GPUs")
    options = parser.parse_args(arguments)
    # this process has the keys to everything, and other processes of its user may run a repository's code
    key_isolation.keep_private()
    key_isolation.wipe_environment(kept=environment.for_training())
    try:
        settings = environment.read()
        spec = _read(options.spec)
    except LorajobError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)  # noqa: T201 no report exists yet
        if environment.is_in_pod():
            termination_message.write(to_termination_message(error))
        return error.failure.code
    if settings.pod is not None:
        termination = pod.run(spec, settings, settings.pod)
        termination_message.write(termination)
        return termination.exit_code
    return supervisor.run(spec, settings, processes=options.processes)


def _read(path: Path) -> specs.RunSpec:
    try:
        return specs.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the spec {path} cannot be read: {error}") from error


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # not sys.exit: a library's thread that waits for a network must not keep a finished container alive
    os._exit(code)
