"""Durations and Kubernetes quantities: `90m` of time, `250m` of a core, `64Gi` of memory. Pure."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from lorajob.errors import UsageError
from lorajob_runtime.contract.text import duration_seconds

MEBIBYTE = 2**20
GIBIBYTE = 2**30

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?|\.\d+)([numkMGTPE]|[KMGTPE]i)?")
_SCALES: dict[str, Fraction] = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{unit: Fraction(1000 ** (power + 1)) for power, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Fraction(1024 ** (power + 1)) for power, unit in enumerate("KMGTPE")},
}


def seconds(duration: str, place: str = "the duration", *, path: str = "") -> int:
    """`90m` -> 5400. Raises UsageError, which names `path` where the duration is a field of the spec, else `place`."""
    if (found := duration_seconds(duration)) is None:
        raise UsageError(f"{path or place} is {duration!r}: it must be a duration like 90m, 24h or 3d", path=path)
    return found


def amount(quantity: str, place: str = "the quantity", *, path: str = "") -> Fraction:
    """`250m` -> 1/4, `64Gi` -> 64 * 2**30: exact, in cores or bytes. Raises UsageError, as `seconds` does.

    As the API server reads it: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/,
    without its exponents and signs, which nobody writes for a resource.
    """
    match = _QUANTITY.fullmatch(quantity)
    value = Fraction(match[1]) * _SCALES[match[2] or ""] if match else 0
    if value <= 0:
        right = "a quantity above 0, like 8, 500m, 64Gi or 1.5T"
        raise UsageError(f"{path or place} is {quantity!r}: it must be {right}", path=path)
    return Fraction(value)


def cores(value: Fraction) -> str:
    """1/4 -> `250m`, 8 -> `8`: what is more exact than a thousandth is rounded up."""
    thousandths = math.ceil(value * 1000)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def size(value: Fraction | int) -> str:
    """Bytes as the largest of Gi, Mi and Ki that shows them whole, else as bytes; parts of a byte are rounded up."""
    whole = math.ceil(value)
    for unit, scale in (("Gi", GIBIBYTE), ("Mi", MEBIBYTE), ("Ki", 1024)):
        if whole and whole % scale == 0:
            return f"{whole // scale}{unit}"
    return str(whole)
