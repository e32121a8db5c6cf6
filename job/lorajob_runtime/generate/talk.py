"""A conversation at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from lorajob_runtime.data.conversation import Message
from lorajob_runtime.exits import DataError
from lorajob_runtime.generate.generator import Generator, Sampling

Say = Callable[[str], None]

_PROMPT = "> "
_HELP = "/reset begins anew, /quit or Ctrl-D ends, Ctrl-C stops an answer"


def talk(
    generator: Generator,
    sampling: Sampling,
    *,
    system: str | None,
    compare_base: bool,
    stdin: TextIO,
    stdout: TextIO,
    notify: Say,
) -> None:
    """Reads lines and answers them with all of the conversation in mind, until the input ends."""
    notify(_HELP)
    history = _begin(system)
    while (line := _read(stdin, stdout)) is not None:
        text = line.strip()
        if text == "/quit":
            return
        if text == "/reset":
            history = _begin(system)
            notify("a new conversation")
        elif text.startswith("/"):
            notify(f"no command {text.split()[0]}: {_HELP}")
        elif text:
            asked: list[Message] = [*history, {"role": "user", "content": text}]
            if (answer := _reply(generator, sampling, asked, compare_base, stdout, notify)) is not None:
                history = [*asked, {"role": "assistant", "content": answer}]


def show(
    generator: Generator, sampling: Sampling, messages: list[Message], stdout: TextIO, *, base: bool = False
) -> str:
    """Streams one answer to `stdout` and returns it. Ctrl-C ends it where it is and is raised on."""
    pieces: list[str] = []
    stream = generator.stream(messages, sampling, base=base)
    try:
        for piece in stream:
            # models begin an answer with blanks or line ends; at the terminal they are in the way
            shown = piece if pieces else piece.lstrip()
            if shown:
                pieces.append(shown)
                stdout.write(shown)
                stdout.flush()
    finally:
        stream.close()  # type: ignore[attr-defined]
        stdout.write("\n")
        stdout.flush()
    return "".join(pieces).rstrip()


def show_both(generator: Generator, sampling: Sampling, messages: list[Message], stdout: TextIO) -> str:
    """The base model's answer, then the tuned one's, each under its name; returns the latter."""
    stdout.write("base:\n")
    show(generator, sampling, messages, stdout, base=True)
    stdout.write("\ntuned:\n")
    return show(generator, sampling, messages, stdout)


def _reply(
    generator: Generator,
    sampling: Sampling,
    messages: list[Message],
    compare_base: bool,
    stdout: TextIO,
    notify: Say,
) -> str | None:
    """The answer, or None when it was stopped or the conversation has grown too long."""
    answer = show_both if compare_base else show
    try:
        return answer(generator, sampling, messages, stdout)
    except KeyboardInterrupt:
        notify("stopped; the question is forgotten")
    except DataError as error:
        notify(f"{error.message}: /reset begins anew")
    return None


def _begin(system: str | None) -> list[Message]:
    return [{"role": "system", "content": system}] if system else []


def _read(stdin: TextIO, stdout: TextIO) -> str | None:
    """The next line, or None at the end of the input. At a terminal Ctrl-C only drops what was typed."""
    while True:
        try:
            if stdin is sys.stdin and stdin.isatty():
                import readline  # noqa: F401 - gives input() its arrow keys and history

                return input(_PROMPT)
            line = stdin.readline()
        except EOFError:
            stdout.write("\n")
            return None
        except KeyboardInterrupt:
            stdout.write("\n")
            continue
        return line or None
