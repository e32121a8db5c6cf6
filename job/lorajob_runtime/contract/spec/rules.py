"""What texts in a spec must look like, and what they mean: places, ranges of rows, shares, durations."""

from __future__ import annotations

import re

from lorajob_runtime.contract import hubs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec.option import Rule
from lorajob_runtime.contract.text import duration_seconds

FOLDERS = ("/", ".", "~")
"""How a folder begins that is never looked for in the catalog."""

COLUMN_ROLES = ("system", "instruction", "input", "output", "history", "messages", "text", "tools", "thought")

_ELSEWHERE = re.compile("|".join([r"[a-zA-Z][a-zA-Z0-9+.-]*://", *(re.escape(hub.prefix) for hub in hubs.MODEL_HUBS)]))
_SLICE = re.compile(r"-?\d*:-?\d*")
_SHARE = re.compile(r"(?:100(?:\.0+)?|\d{1,2}(?:\.\d+)?)%|error")


def row_slice(text: str | None) -> slice:
    """`5:5000` -> slice(5, 5000); None -> all rows. Raises ConfigError."""
    if text is None:
        return slice(None)
    if _SLICE.fullmatch(text) is None:
        raise ConfigError(f"{text!r} is not a row range: it must be like 5:5000, :5 or -100:")
    start, stop = text.split(":")
    return slice(int(start) if start else None, int(stop) if stop else None)


def dropped_share(text: str) -> float | None:
    """`5%` -> 0.05: the share of rows that may be left out; None for `error`, where none may."""
    return None if text == "error" else float(text.removesuffix("%")) / 100


def _is_place(text: str, *, needs_key: bool = False) -> bool:
    """Whether a text is a path, or an address in S3: no path is empty, and none begins like an address elsewhere."""
    is_elsewhere = _ELSEWHERE.match(text) is not None and not text.startswith("s3://")
    return bool(text.strip()) and not is_elsewhere and _is_address(text, needs_key=needs_key)


def _is_address(text: str, *, needs_key: bool = False) -> bool:
    """Whether an address in S3 names a bucket, and below it something where that is needed; true of all else."""
    bucket, _, key = text.removeprefix("s3://").partition("/")
    return not text.startswith("s3://") or bool(bucket.strip() and (key.strip("/") or not needs_key))


def _is_model(text: str) -> bool:
    return bool(text) and _is_address(text)


MODEL = Rule(right=f"a catalog name, {hubs.FORMS} or a folder", fits=_is_model)
MODEL_SOURCE = Rule(right=f"{hubs.FORMS}, {hubs.S3.form} or a folder", fits=_is_model)
DATA_SOURCE = Rule(right="a file, or s3://BUCKET/KEY", fits=lambda text: _is_place(text, needs_key=True))
STORAGE = Rule(right="a folder, or s3://BUCKET/PREFIX", fits=_is_place)
ROWS = Rule(
    right="a row range like 5:5000, :5 or -100:",
    fits=lambda text: _SLICE.fullmatch(text) is not None,
    wrong_type="a row range like 5:5000, :5 or -100:, in quotes",
)
HELD_OUT_ROWS = Rule(
    right="a row range like :5 or -100:", fits=ROWS.fits, wrong_type="a row range like :5 or -100:, in quotes"
)
SHARE = Rule(
    right="a share from 0% to 100%, or error",
    fits=lambda text: _SHARE.fullmatch(text) is not None,
    wrong_type="a share from 0% to 100%, or error",
)
DURATION = Rule(right="a duration like 90m, 24h or 3d", fits=lambda text: duration_seconds(text) is not None)
TARGETS = Rule(right="auto or a list of texts", fits=lambda targets: len(targets) > 0)
WARMUP = Rule(
    right="whole steps, or a share of all steps below 1", fits=lambda steps: steps < 1 or float(steps).is_integer()
)
PROJECT = Rule(
    right="at most 100 letters, digits and _ . + -, as SwanLab takes it",
    fits=lambda text: re.fullmatch(r"[0-9A-Za-z_.+-]{1,100}", text) is not None,
)
