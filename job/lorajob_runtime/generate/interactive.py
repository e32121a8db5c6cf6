"""A conversation at the terminal: questions are typed, answers are streamed, and it remembers both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TextIO

from lorajob_runtime.contract.errors import DataError
from lorajob_runtime.contract.text import escape_controls
from lorajob_runtime.data.chat.reasoning import Kind, Splitter
from lorajob_runtime.data.rows.conversation import Message
from lorajob_runtime.generate.generator import Generator, Sampling

_PROMPT = "> "
_HELP = "/reset starts again, /quit or Ctrl-D ends, Ctrl-C stops an answer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Terminal:
    """Where questions come from and answers go; `notify` gets everything else. `reasoning`: it is shown, too."""

    stdin: TextIO
    stdout: TextIO
    notify: Callable[[str], None]
    reasoning: bool


def talk(
    generator: Generator, sampling: Sampling, terminal: Terminal, *, system: str | None, compare_base: bool
) -> None:
    """Reads lines and answers them with all of the conversation in mind, until the input ends."""
    notify = terminal.notify
    notify(_HELP)
    history = _begin(system)
    while (line := _read(terminal.stdin, terminal.stdout)) is not None:
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
            if (answer := _reply(generator, sampling, asked, terminal, compare_base)) is not None:
                history = [*asked, {"role": "assistant", "content": answer}]


def show(
    generator: Generator,
    sampling: Sampling,
    messages: list[Message],
    stdout: TextIO,
    *,
    reasoning: bool = False,
    base: bool = False,
) -> str:
    """Streams one answer to `stdout` and returns it. Ctrl-C ends it where it is and is raised on.

    With `reasoning` what the model thinks first is shown, too, at a terminal dimmed.
    """
    splitter = Splitter(thinking=generator.opens_thought(messages))
    stream = generator.stream(messages, sampling, base=base)
    shown = _Shown(stdout, reasoning=reasoning)
    try:
        for piece in stream:
            shown.add(splitter.feed(piece))
        shown.add(splitter.end())
    finally:
        stream.close()  # type: ignore[attr-defined]
        shown.close()
    return shown.answer.rstrip()


def show_both(
    generator: Generator, sampling: Sampling, messages: list[Message], stdout: TextIO, *, reasoning: bool = False
) -> str:
    """The base model's answer, then the tuned one's, each under its name; returns the latter."""
    stdout.write("base:\n")
    show(generator, sampling, messages, stdout, reasoning=reasoning, base=True)
    stdout.write("\ntuned:\n")
    return show(generator, sampling, messages, stdout, reasoning=reasoning)


class _Shown:
    """What of an answer is on the screen already."""

    def __init__(self, stdout: TextIO, *, reasoning: bool) -> None:
        self.answer = ""
        self._stdout, self._shows_reasoning = stdout, reasoning
        self._is_terminal = stdout.isatty()
        self._dim, self._plain = ("\033[2m", "\033[0m") if self._is_terminal else ("", "")
        self._thought = ""

    def add(self, parts: Iterable[tuple[Kind, str]]) -> None:
        """Writes the next parts. Models begin with white space, which is left out."""
        for kind, piece in parts:
            if kind == "reasoning":
                said = piece if self._thought else piece.lstrip()
                self._thought += said
                if self._shows_reasoning and said:
                    self._stdout.write(f"{self._dim}{self._safe(said)}{self._plain}")
            else:
                said = piece if self.answer else piece.lstrip()
                if said and not self.answer and self._shows_reasoning and self._thought:
                    self._stdout.write("\n" if self._thought.endswith("\n") else "\n\n")
                self.answer += said
                self._stdout.write(self._safe(said))
        self._stdout.flush()

    def _safe(self, text: str) -> str:
        """What the model says must not steer a terminal; anything else gets it as it is."""
        return escape_controls(text) if self._is_terminal else text

    def close(self) -> None:
        """Ends the line."""
        self._stdout.write("\n")
        self._stdout.flush()


def _reply(
    generator: Generator, sampling: Sampling, messages: list[Message], terminal: Terminal, compare_base: bool
) -> str | None:
    """The answer, or None when it was stopped or the conversation has grown too long."""
    answer = show_both if compare_base else show
    try:
        return answer(generator, sampling, messages, terminal.stdout, reasoning=terminal.reasoning)
    except KeyboardInterrupt:
        terminal.notify("stopped; the question is forgotten")
    except DataError as error:
        terminal.notify(f"{error.message}: /reset starts again")
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
