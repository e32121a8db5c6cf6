"""Marks on a turn that say whether it is trained, in the spellings of the tools that read them.

OpenAI, Mistral, Fireworks and Together: `weight`. ms-swift: `loss`, `loss_scale`. axolotl: `train`, `training`, and
`train_detail` for parts of a turn. LLaMA-Factory: `loss_weight`. Home Assistant's sets: `train_on_turn`. torchtune:
`masked`. XTuner: `output_with_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract.text import kind, truncate
from lorajob_runtime.data.rows.conversation import RowError
from lorajob_runtime.data.rows.unused import has_something

_TRAINED = (
    "weight",
    "loss",
    "loss_weight",
    "loss_scale",
    "train",
    "trainable",
    "training",
    "is_trainable",
    "train_on_turn",
    "output_with_loss",
)
_NOT_TRAINED = ("masked", "mask")
_PARTS = ("train_detail", "training_detail")
_WORDS = {"true": True, "yes": True, "false": False, "no": False}

KEYS = frozenset((*_TRAINED, *_NOT_TRAINED, *_PARTS))


def trained(turn: Mapping[str, Any], number: int) -> tuple[bool | None, frozenset[str]]:
    """What the marks of a turn say, None when it has none; and the keys that were read as marks.

    Raises RowError for a mark that is neither yes nor no, for two that contradict, and for one on parts of a turn.
    """
    if KEYS.isdisjoint(turn):
        return None, frozenset()
    says: dict[str, bool] = {}
    for key in turn.keys() & KEYS:
        value = turn[key]
        if key in _PARTS:
            if has_something(value):
                raise RowError(
                    f"turn {number} trains parts of an answer ({key}): here a turn is trained as a whole or not at all"
                )
        elif (said := _flag(key, value, number)) is not None:
            says[key] = said != (key in _NOT_TRAINED)
    if len(set(says.values())) > 1:
        marks = " and ".join(f"{key} {turn[key]!r}" for key in sorted(says))
        raise RowError(f"turn {number} has {marks}, which contradict each other")
    return next(iter(says.values()), None), frozenset(says)


def _flag(key: str, value: object, number: int) -> bool | None:
    """A mark as true or false; None for null and for words that are no mark."""
    if not has_something(value) or isinstance(value, bool):
        return value if isinstance(value, bool) else None
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS:
            return _WORDS[word]
        try:
            value = float(word)
        except ValueError:
            return None
    if not isinstance(value, int | float):
        raise RowError(f"turn {number} has {key} as {kind(value)}: it must be 0 or 1, true or false")
    if value not in (0, 1):
        raise RowError(
            f"turn {number} has {key} {truncate(value)}: "
            "it must be 0 or 1, as a turn is trained as a whole or not at all"
        )
    return bool(value)
