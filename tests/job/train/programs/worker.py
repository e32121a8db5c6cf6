"""A training process as the supervisor starts it, but for the start: its log, its cause and its exit code are real."""

from __future__ import annotations

from lorajob_runtime.train import __main__ as entry


def main(arguments: list[str]) -> int:
    return entry.main(arguments)
