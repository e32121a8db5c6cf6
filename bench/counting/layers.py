"""A decoder layer's share of a micro-batch, as training computes it, counted on tensors of a GPU that is not there.

The model is built by what builds it in training: only its weights are not read, and of its layers there are two or
three. What three take more than two is one layer; what two take is that twice, with embedding, head and loss.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from counting.backward import backward
from counting.operations import Count, Counts, OperationCounter
from lorajob_runtime.contract.spec import ModelSpec, RunSpec
from lorajob_runtime.models.placement import Placement
from lorajob_runtime.train import session, step
from lorajob_runtime.train.base_model import forward, loading
from lorajob_runtime.train.base_model.fused import replacing
from lorajob_runtime.train.lora import dropout
from lorajob_runtime.train.parallel.gradients import FlatGradients

DEVICE = torch.device("cuda", 0)

FUNCTIONS = (replacing.RMS_NORM, replacing.ROTARY, replacing.SWIGLU)
"""What training finds to give these models' numbers; here there are no numbers to compare."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Documents of `length` tokens, `targets` of each with loss."""

    documents: int
    length: int
    targets: int

    @property
    def tokens(self) -> int:
        return self.documents * self.length


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """`layer` is one decoder layer; `ends` all else, with the first and the last layer among it."""

    layer: Counts
    ends: Counts


def count(
    config: Mapping[str, Any],
    spec: RunSpec,
    micro_batches: Sequence[MicroBatch],
    *,
    layer: int,
    experts: bool = True,
    draws: int = dropout.NEWEST,
) -> list[Counted]:
    """Counts of layer number `layer`, and of those behind it, of a model with this config.json.

    `experts`: whether routed experts have adapters, where there are any and the spec wants them. `draws`: the version
    of dropout's, of which the newest has a Triton kernel that needs a C compiler.
    """
    sides = [_counts(config, spec, micro_batches, range(layer, layer + layers), experts, draws) for layers in (2, 3)]
    return [Counted(layer=_difference(three, two), ends=two) for two, three in zip(*sides, strict=True)]


def _difference(more: Counts, fewer: Counts) -> Counts:
    differences = {
        name: {operation: of - fewer[name].get(operation, Count()) for operation, of in operations.items()}
        for name, operations in more.items()
    }
    return {name: {op: of for op, of in ops.items() if of != Count()} for name, ops in differences.items()}


def _counts(
    config: Mapping[str, Any],
    spec: RunSpec,
    micro_batches: Sequence[MicroBatch],
    layers: range,
    experts: bool,
    draws: int,
) -> list[Counts]:
    with tempfile.TemporaryDirectory() as folder, _gpu_that_is_not_there(), FakeTensorMode():
        path = Path(folder)
        (path / "config.json").write_text(json.dumps(_with_layers(config, layers.stop)))
        attempt = _attempt(path, spec, layers, experts)
        attempt.masks.version = draws
        return [_passes(attempt, each, spec.train.seed) for each in micro_batches]


def _passes(attempt: Any, micro_batch: MicroBatch, seed: int) -> Counts:
    """Of one forward and one backward pass."""
    ids = np.zeros(micro_batch.tokens, dtype=np.int32)
    ends = np.arange(1, micro_batch.documents + 1) * micro_batch.length
    targets = np.concatenate([np.arange(end - micro_batch.targets, end) for end in ends])
    attempt.masks.start(seed, 1, 0, 0)
    with OperationCounter() as counter:
        with counter.during("forward"):
            loss = step._token_loss(attempt, ids, targets, [micro_batch.length] * micro_batch.documents)
        with counter.during("backward"):
            backward(loss)
    return {name: dict(operations) for name, operations in counter.counts.items()}


def _with_layers(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The configuration with so many layers. What it says of each of its layers is a list; the last stands for more."""
    known = config["num_hidden_layers"]
    lists = {name: each for name, each in config.items() if isinstance(each, list) and len(each) == known}
    fitted = {name: [*each, *each[-1:] * layers][:layers] for name, each in lists.items()}
    return {**config, **fitted, "num_hidden_layers": layers}


def _attempt(path: Path, spec: RunSpec, layers: range, experts: bool) -> Any:
    """What of a session the loss of a micro-batch needs."""
    job: Any = SimpleNamespace(model_path=str(path), spec=spec)
    accelerator: Any = SimpleNamespace(device=DEVICE, num_processes=1)
    decided: Any = SimpleNamespace(packs=True, plain_head=True, functions=FUNCTIONS)
    placed = Placement(sharded=False, experts=experts)

    def load(path: Path, model: ModelSpec, dtype: torch.dtype, *_: Any, **__: Any) -> nn.Module:
        with DEVICE:
            built = AutoModelForCausalLM.from_config(loading.configuration(path, model)[0], dtype=dtype)
        built.model.layers = nn.ModuleList(built.model.layers[number] for number in layers)
        return built

    with mock.patch.object(loading, "load", load):
        loaded = session._load_model(job, accelerator, "bf16", placed, decided)
    FlatGradients(loaded.trained)
    return SimpleNamespace(accelerator=accelerator, decided=decided, model=loaded.model, masks=loaded.masks)


@contextlib.contextmanager
def _gpu_that_is_not_there() -> Iterator[None]:
    """Answers for a GPU of the H100's kind, and takes what is copied to it for memory that it has already."""

    def on_device(array: np.ndarray, device: torch.device) -> Tensor:
        return torch.empty(array.shape, dtype=torch.from_numpy(array).dtype, device=device)

    def apply(module: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
        # torch's own exchanges the memory of parameters, and these have none
        for part in module.modules():
            for name, item in part.named_parameters(recurse=False):
                setattr(part, name, nn.Parameter(function(item.detach()), requires_grad=item.requires_grad))
            for name, item in part.named_buffers(recurse=False):
                part._buffers[name] = function(item)
        return module

    with (
        mock.patch.object(nn.Module, "_apply", apply),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)),
        mock.patch.object(torch, "Generator", return_value=torch.Generator()),
        mock.patch.object(forward, "on_device", on_device),
        mock.patch.object(replacing, "_agree", return_value=True),
        mock.patch.object(replacing, "_rotates_halves", return_value=True),
    ):
        yield
