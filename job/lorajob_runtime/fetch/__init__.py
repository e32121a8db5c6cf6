"""Gets a base model's files onto this machine: from a hub, an S3 prefix, a Python package or a folder, in one cache.

Nothing here loads a model or imports torch; hub clients run in a process of their own. What downloads is loaded when it
is asked for, so that the command line can name a model's sources (`sources`) at little cost.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorajob_runtime.fetch.resolve import FetchedModel, cached, fetch, fetch_tokenizer

__all__ = ["FetchedModel", "cached", "fetch", "fetch_tokenizer"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("lorajob_runtime.fetch.resolve"), name)
