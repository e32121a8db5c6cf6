"""Spec files: YAML 1.2 read with care, since they may come from anyone, and written so that they read back the same.

JSON is YAML, and is read as JSON where it may come from a program: a YAML parser takes longer to load than a request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorajob.errors import UsageError

MAX_SIZE_BYTES = 1 << 20
FORM = "a spec is a mapping of fields, like `train: {epochs: 3}`"
_MAX_DEPTH = 20
"""Of what is read as JSON; deeper ones are for the YAML reader to refuse."""


class MissingFileError(UsageError):
    """A file that is named is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecFile:
    """The fields in a file, and on which line each one stands."""

    path: str
    values: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def place(self, field_path: str) -> str:
        """`spec.yaml:7` for a field that the file has, else `spec.yaml`."""
        line = self.lines.get(field_path)
        return f"{self.path}:{line}" if line else self.path


def load(path: Path, form: str = FORM) -> SpecFile:
    """Reads a spec file. Raises UsageError with file and line for what is not a YAML mapping; `form` says what is.

    Raises MissingFileError where there is none.
    """
    try:
        if path.stat().st_size > MAX_SIZE_BYTES:
            raise UsageError(f"{path} has more than {MAX_SIZE_BYTES >> 20} MiB: {form}")
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path} does not exist", hint="`lorajob init` writes a lorajob.yaml to start from"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    return _from_yaml(text, str(path), form)


def loads(text: str, path: str, form: str = FORM) -> SpecFile:
    """The fields in a text that a program may have written as JSON, which then has no lines; an empty text has none.

    `path` is its name in errors, `form` what it must be.
    """
    try:
        value = _from_json(text)
    except ValueError:
        return _from_yaml(text, path, form)
    return SpecFile(path=path, values=value) if isinstance(value, dict) else _from_yaml(text, path, form)


def scalar(text: str) -> Any:
    """The value of a flag or of `--set`, read as in a file: `1e-4`, `5:50`, `[q_proj, v_proj]`, `null`."""
    try:
        return _from_json(text)
    except ValueError:
        from lorajob.spec import yaml_text

        return yaml_text.scalar(text)


def dumps(value: dict[str, Any]) -> str:
    """A mapping as YAML in the order of its keys; whole numbers are written without a point."""
    from lorajob.spec import yaml_text

    return yaml_text.dumps(value)


def _from_yaml(text: str, path: str, form: str) -> SpecFile:
    from lorajob.spec import yaml_text

    values, lines = yaml_text.mapping(text, path, form)
    return SpecFile(path=path, values=values, lines=lines)


def _from_json(text: str) -> Any:
    """The value of a JSON text that YAML reads as the same. Raises ValueError for any other."""

    def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a key twice")
        return value

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number in JSON")

    # deeper than any spec, and not so deep that reading it could be a danger
    if text.count("[") + text.count("{") > 1000:
        raise ValueError("too many brackets")
    value = json.loads(text, object_pairs_hook=without_twins, parse_constant=refuse)
    if _depth(value) > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    return value


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)
