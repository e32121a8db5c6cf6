"""Tells whether transformers has a class of its own for a model: as a program, `python -m` this module.

    {"config": path of a config.json} -> {"class": transformers' name of the model's type, or null}

A process of its own, since transformers and torch take seconds to import and hundreds of megabytes for as long as the
supervisor lives.
"""

from __future__ import annotations

import json
from pathlib import Path

from lorajob_runtime.system import processes
from lorajob_runtime.system.child_process import Parent


def main() -> None:
    """Answers one request."""
    processes.die_with_parent()
    parent = Parent()
    config = Path(parent.request()["config"])
    # takes seconds, and not before this process is bound to its parent
    from lorajob_runtime.train.base_model.native_class import native_type

    parent.answer({"class": native_type(json.loads(config.read_text("utf-8")))})
    parent.leave()


if __name__ == "__main__":
    main()
