"""Hand-written sequences whose trained parts stand between ⟦ and ⟧."""

from __future__ import annotations

import re
from typing import Any


def marked(tokenizer: Any, text: str) -> tuple[list[int], list[bool]]:
    """Tokens and targets of a hand-written sequence whose trained parts stand between ⟦ and ⟧."""
    ids: list[int] = []
    targets: list[bool] = []
    for index, piece in enumerate(re.split(r"[⟦⟧]", text)):
        piece_ids = tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
        ids += piece_ids
        targets += [index % 2 == 1] * len(piece_ids)
    return ids, targets
