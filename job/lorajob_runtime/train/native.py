"""Whether transformers has a class of its own for a model: `python -m lorajob_runtime.train.native CONFIG.json`.

Ends with 0 where it has one, with UNKNOWN_CLASS where not. A process of its own, since transformers and torch take
seconds to import and hundreds of megabytes for as long as the supervisor lives.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lorajob_runtime.repository_code import UNKNOWN_CLASS


def native_type(stored: dict[str, Any]) -> str | None:
    """transformers' own name of the architecture that a config.json says; None when it has no such class.

    The class it names outranks its model_type: a repository with code of its own can have called that anything.
    """
    architectures = stored.get("architectures") or [None]
    types: list[str] = [name for name, known in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if known == architectures[0]]
    declared: str | None = stored.get("model_type")
    if declared in types or not types:
        return declared if declared in CONFIG_MAPPING else None
    return types[0]


if __name__ == "__main__":
    sys.exit(0 if native_type(json.loads(Path(sys.argv[1]).read_text("utf-8"))) else UNKNOWN_CLASS)
