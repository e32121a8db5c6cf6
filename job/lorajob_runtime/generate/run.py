"""One call of `lorajob generate`, from the request to the last answer."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from lorajob_runtime import fetch
from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.generate import batch, interactive
from lorajob_runtime.generate.generator import Generator, Sampling
from lorajob_runtime.generate.interactive import Terminal
from lorajob_runtime.generate.request import Request
from lorajob_runtime.publish import adapter_lookup
from lorajob_runtime.system import environment as environment_module
from lorajob_runtime.system.environment import Environment


def run(
    request: Request,
    stdout: TextIO,
    stdin: TextIO,
    *,
    environment: Environment | None = None,
    notify: Callable[[str], None] | None = None,
) -> None:
    """Answers go to `stdout`, everything else to `notify` (default: stderr).

    Raises ConfigError, DataError, ModelError and what fetching the base model raises; KeyboardInterrupt for a Ctrl-C
    outside of a conversation.
    """
    notify = notify or _to_stderr
    terminal = Terminal(stdin=stdin, stdout=stdout, notify=notify, reasoning=request.shows_reasoning(stdout))
    settings = environment or environment_module.read()
    lines = _lines(request.file, stdin) if request.file is not None else []
    with adapter_lookup.find(
        request.target,
        storage=request.storage,
        environment=settings,
        trust_remote_code=request.trust_remote_code,
    ) as found:
        system = found.system if request.system is None else request.system or None
        rows = batch.parse(lines, system=system) if request.file is not None else []
        model = fetch.fetch(found.base, environment=settings, notify=notify)
        with environment_module.keys_put_away() if found.base.trust_remote_code else contextlib.nullcontext():
            _answer(request, found, model.path, rows, system, terminal)


def _answer(
    request: Request,
    found: adapter_lookup.Target,
    model: Path,
    rows: list[batch.Row],
    system: str | None,
    terminal: Terminal,
) -> None:
    """Answers the rows of a file, one prompt, or a conversation. `model` is the folder of the base model."""
    stdout = terminal.stdout
    generator = Generator.load(found.base, model, found.adapter, thinking=found.thinking)
    sampling = Sampling(
        max_new_tokens=request.max_new_tokens,
        temperature=request.temperature,
        top_k=request.top_k,
        seed=request.seed,
    )
    if request.file is not None:
        for item in batch.answers(rows, generator, sampling, compare_base=request.compare_base):
            stdout.write(json.dumps(item, ensure_ascii=False) + "\n")
            stdout.flush()
    elif request.prompt is not None:
        show = interactive.show_both if request.compare_base else interactive.show
        asked = batch.conversation(request.prompt, system)
        if not show(generator, sampling, asked, stdout, reasoning=terminal.reasoning):
            terminal.notify(
                f"the answer is empty: the model ended at once, or was still thinking after {sampling.max_new_tokens} "
                "tokens (--max-new-tokens allows more, --reasoning show shows them)"
            )
    else:
        interactive.talk(generator, sampling, terminal, system=system, compare_base=request.compare_base)


def _lines(file: str, stdin: TextIO) -> list[str]:
    if file == "-":
        return stdin.readlines()
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}", hint="") from error


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
