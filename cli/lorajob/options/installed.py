"""Whether what trains is installed: the command line alone is light and does without it."""

from __future__ import annotations

import importlib.util

from lorajob.errors import UsageError

RUNTIME = ("torch", "transformers", "peft", "accelerate", "pyarrow", "safetensors", "boto3")
"""What a look tells the extra `runtime` by; finding a module does not import it."""


def require_runtime(purpose: str) -> None:
    """Raises UsageError when packages are missing that `purpose` needs."""
    missing = [name for name in RUNTIME if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{purpose} needs {', '.join(missing)}, which the command line alone does not install",
            hint="install lorajob with its extra: pip install 'lorajob[runtime]'",
        )
