"""Makes a run's adapter/ from its final checkpoint, all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import events, layout
from lorajob_runtime.contract.errors import LorajobError, StorageError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.plain_files import open_plain, read_plain
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.fetch import FetchedModel
from lorajob_runtime.models import config_files, end_tokens, quantization
from lorajob_runtime.models.chat_families import SWITCH
from lorajob_runtime.models.provenance import BaseModelOrigin, describe
from lorajob_runtime.publish import loss_curve, model_card
from lorajob_runtime.publish.adapter_info import AdapterInfo
from lorajob_runtime.publish.facts import RunFacts, gather, installed_versions
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.system import atomic

_NOT_PUBLISHED = frozenset({*layout.RESUME_ONLY, layout.MANIFEST, layout.ADAPTER_CONFIG})


def publish(folder: RunFolder, *, spec: RunSpec, model: FetchedModel) -> Path:
    """Writes the adapter folder, replacing an older one; returns its path.

    Raises StorageError when the disk does not take it, LorajobError when training has not finished,
    NotPlainError when a file of the checkpoint is none.
    """
    source = _final_checkpoint(folder)
    base = describe(model.source, model.revision)
    try:
        with atomic.replacing_folder(folder.adapter) as draft:
            _fill(draft, source, base)
            _describe(draft, folder, spec, base, model)
    except OSError as error:
        raise StorageError(f"{folder.adapter} cannot be written: {error.strerror or error}") from error
    return folder.adapter


def _final_checkpoint(folder: RunFolder) -> Path:
    steps = checkpoint.steps(folder)
    path = folder.checkpoint(steps[-1]) if steps else None
    if path is None or not checkpoint.read_state(path).get("finished"):
        raise LorajobError(f"{folder.root} has no checkpoint of a finished training: there is nothing to publish")
    return path


def _fill(draft: Path, source: Path, base: BaseModelOrigin) -> None:
    """Weights and tokenizer as they are, and PEFT's configuration naming a base that others can load."""
    for path in sorted(source.iterdir()):
        if path.name not in _NOT_PUBLISHED and not path.name.startswith("."):
            _link(path, draft / path.name)
    config: dict[str, Any] = json.loads(read_plain(source / layout.ADAPTER_CONFIG))
    config |= {"base_model_name_or_path": base.load_name, "revision": base.hub_revision, "inference_mode": True}
    (draft / layout.ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _describe(draft: Path, folder: RunFolder, spec: RunSpec, base: BaseModelOrigin, model: FetchedModel) -> None:
    """Model card, curve, and what `generate` needs."""
    AdapterInfo(
        run=spec.run_name,
        model=spec.model.name,
        source=model.source,
        revision=model.revision,
        system=spec.data.system,
        thinking=spec.data.thinking,
        quantize=spec.model.quantize,
    ).write(draft)
    facts = _facts(draft, folder, spec, base, model.path)
    if facts.losses:
        loss_curve.draw(facts.losses, facts.evaluations, draft / layout.LOSS_CURVE, title=spec.run_name)
    (draft / layout.MODEL_CARD).write_text(model_card.render(facts), encoding="utf-8")


def _facts(draft: Path, folder: RunFolder, spec: RunSpec, base: BaseModelOrigin, model: Path) -> RunFacts:
    report = folder.data_report
    return gather(
        events.read(folder.events),
        spec=spec,
        base=base,
        data=json.loads(read_plain(report)) if report.is_file() else {},
        versions=installed_versions(),
        thinking_switch=config_files.chat_template_has(draft, SWITCH),
        fp8=_is_fp8(spec.model.name, model),
        ends=end_tokens.taught(model, draft),
    )


def _is_fp8(name: str, model: Path) -> bool:
    """Whether the base's weights are in FP8, as the config.json beside them says."""
    return quantization.fp8_blocks(name, config_files.read_config(model / config_files.CONFIG)) is not None


def _link(path: Path, target: Path) -> None:
    """A second name for a file that nobody writes to any more; a copy where the disk has no links."""
    with open_plain(path) as file:
        # the writer of weights lets only their owner read them; a result is for others
        os.fchmod(file.fileno(), 0o644)
        try:
            os.link(path, target)
        except OSError:
            with target.open("wb") as copy:
                shutil.copyfileobj(file, copy)
