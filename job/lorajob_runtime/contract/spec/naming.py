"""Names of runs: what one may be, and the one that a run gets whose user gave it none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lorajob_runtime.contract.spec.option import Rule

if TYPE_CHECKING:
    import random

NAME_MAX_LENGTH = 52
"""A Job's pods are named <job>-<index>-<5 letters>; longer Job names are cut there."""

_SUFFIX_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def valid_name(name: str) -> bool:
    """Whether a name can be a Job's, a path's and a key's."""
    return len(name) <= NAME_MAX_LENGTH and re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) is not None


def default_name(model: str, rng: random.Random) -> str:
    """<model>-<5 random>: a DNS label of at most 52 letters."""
    base = model.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].lower()
    base = re.sub(r"[^a-z0-9]+", "-", base).strip("-")
    if not base or not base[0].isalpha():
        base = f"run-{base}".rstrip("-")
    base = base[: NAME_MAX_LENGTH - 6].rstrip("-")
    return base + "-" + "".join(rng.choices(_SUFFIX_LETTERS, k=5))


NAME = Rule(
    right=f"lower-case letters, digits and -, start with a letter, and have at most {NAME_MAX_LENGTH} characters",
    fits=valid_name,
)
