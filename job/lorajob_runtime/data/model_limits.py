"""Rows that a model cannot read, or not well, though its tokenizer can: by their token ids, and by their length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lorajob_runtime.contract.text import truncate
from lorajob_runtime.data.chat.tokenizer import Tokenizer
from lorajob_runtime.data.tokens import Ids, Mask
from lorajob_runtime.models.token_limits import Bounds


def unreadable_reason(sequences: Iterable[tuple[Ids, Mask]], tokenizer: Tokenizer, bounds: Bounds) -> str | None:
    """Why the model cannot read a row's sequences, to be read on after "row 7"; None where it can."""
    for ids, _ in sequences:
        if (foreign := foreign_id(ids, bounds)) is not None:
            token = tokenizer.convert_ids_to_tokens(foreign) if foreign >= 0 else None
            named = (
                f"the token {truncate(repr(token), 60)} (id {foreign})" if token is not None else f"token id {foreign}"
            )
            return (
                f"has {named}, and the model's embedding has {bounds.vocabulary} rows, for ids from 0 to "
                f"{(bounds.vocabulary or 0) - 1}: tokens were added to the tokenizer and not to the weights; "
                "take the tokenizer that belongs to them, or weights that were resized, or leave the token out"
            )
        if bounds.ends and bounds.window is not None and len(ids) > bounds.window:
            return (
                f"has {len(ids)} tokens, and the model has positions for only {bounds.window}; "
                f"set data.maxLength to {bounds.window}"
            )
    return None


def foreign_id(ids: Ids | Sequence[int], bounds: Bounds) -> int | None:
    """The first token id that the model's embedding has no row for."""
    if bounds.vocabulary is None or not len(ids):
        return None
    array = np.asarray(ids)
    # read as an unsigned number, a negative id is beyond every vocabulary
    if array.view(f"u{array.itemsize}").max() < bounds.vocabulary:
        return None
    outside = np.flatnonzero((array < 0) | (array >= bounds.vocabulary))
    return int(array[outside[0]]) if len(outside) else None


def length_warning(sequences: Iterable[tuple[Ids, Mask]], bounds: Bounds) -> str | None:
    """The warning about a row that is longer than the model was trained for; None where it is not."""
    if bounds.window is None or all(len(ids) <= bounds.window for ids, _ in sequences):
        return None
    return f"longer than the model's window of {bounds.window} tokens, beyond which it was not trained"
