"""How a field of the spec is called on the command line. Pure."""

from __future__ import annotations

from lorajob_runtime.contract import schema

NAMES = {
    "model.name": "model",
    "model.source": "model-source",
    "data.source": "data",
    "storage.uri": "storage",
}
"""Fields whose flag is not the kebab-case of their last word, because that word alone would not say enough."""


def flag_of(path: str) -> str:
    """`train.learningRate` -> `--learning-rate`; `report.swanlab.mode` -> `--swanlab-mode`."""
    parts = path.split(".")
    return "--" + NAMES.get(
        path, "-".join(schema.kebab(part) for part in (parts[-1:] if len(parts) < 3 else parts[-2:]))
    )
