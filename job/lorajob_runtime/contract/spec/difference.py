"""What differs between two specs that makes a resumed run another run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lorajob_runtime.contract import schema
from lorajob_runtime.contract.spec.fields import RunSpec
from lorajob_runtime.contract.spec.listing import every_field


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One field that differs between two specs, with its values as JSON has them."""

    field: str
    was: Any
    now: Any


def changes(was: RunSpec, now: RunSpec, *, place: bool = False) -> list[Change]:
    """What differs in fields that are fixed: with any of these a resumed run would not be the same run.

    With `place`, also in fields that say where the run or its data are. The dataset's identity is its hash, checked
    apart, and no field.
    """
    return [
        Change(field=field.path, was=schema.plain(field.value_in(was)), now=schema.plain(field.value_in(now)))
        for field in every_field()
        if (field.is_fixed or (place and field.is_place)) and field.value_in(was) != field.value_in(now)
    ]
