"""What each fused function of the base model brings: one micro-batch forwards and backwards, with none and with each.

    python bench/functions.py                        SmolLM2-135M in bf16, documents of 90 to 210 tokens
    python bench/functions.py --precision fp32

The ways take turns in one process, in which each has a model of its own, with an adapter as training attaches it. Of
every way the processor's seconds, the least and the median over the rounds after a first one that is not counted: the
processor's, since other programs may share the cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from lorajob_runtime import fetch
from lorajob_runtime.contract.spec import LoraSpec, ModelSpec
from lorajob_runtime.models.memory_plan import Precision
from lorajob_runtime.system import environment
from lorajob_runtime.train import loss
from lorajob_runtime.train.base_model import attention, forward
from lorajob_runtime.train.lora import attach, linear
from lorajob_runtime.train.lora.dropout import DropoutMasks

DOCUMENTS = [140, 90, 210, 120, 80]
"""Tokens of each: 640 in all, what a CPU takes at a time."""


def way(path: Path, name: str, precision: Precision, functions: Sequence[str] | None) -> Callable[[], float]:
    """Works a micro-batch and returns its mean loss. `functions` None: all that training would take."""
    base = forward.load(path, ModelSpec(name=name), precision, torch.device("cpu"))
    forward.use_functions(base, forward.own_functions(base) if functions is None else functions)
    model = attach.attach(base, LoraSpec(), seed=1, experts=False)
    masks = DropoutMasks()
    linear.fuse(model, masks)
    model.train()
    drawn = np.random.default_rng(0)
    tokens = sum(DOCUMENTS)
    ids = torch.from_numpy(drawn.integers(3, base.config.vocab_size, size=tokens)).unsqueeze(0)
    before = torch.from_numpy(np.sort(drawn.choice(tokens, tokens // 3, replace=False)))
    labels = ids[0].index_select(0, before)

    def work() -> float:
        masks.start(1, 2, 3)
        summed = forward.forward_with_head(
            model,
            forward.packed_inputs(ids, DOCUMENTS),
            lambda hidden, weight: loss.head_loss(hidden[0].index_select(0, before), weight, labels),
        )
        summed.backward()
        return float(summed.detach()) / len(labels)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = fetch.fetch(ModelSpec(name=options.model), environment=environment.read(), notify=print)
    own = ["rms_norm", "swiglu", "rotary", *(attention.WIDENED if options.precision == "bf16" else ())]
    asked: dict[str, Sequence[str] | None] = {"none": (), **{each: (each,) for each in own}, "all": None}
    ways = {each: way(model.path, options.model, options.precision, names) for each, names in asked.items()}
    seconds: dict[str, list[float]] = {each: [] for each in ways}
    losses = {each: work() for each, work in ways.items()}
    for _ in range(options.rounds):
        for each, work in ways.items():
            began = time.process_time()
            work()
            seconds[each].append(time.process_time() - began)
    print("| functions | loss | least s | median s | against none |\n|---|---|---|---|---|")
    plain = statistics.median(seconds["none"])
    for each, taken in seconds.items():
        median = statistics.median(taken)
        print(f"| {each} | {losses[each]:.4f} | {min(taken):.2f} | {median:.2f} | {plain / median:.2f}x |")


if __name__ == "__main__":
    main()
