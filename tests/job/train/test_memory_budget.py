"""How many tokens go through at a time, and when activations are recomputed instead of kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models.memory_plan import ACTIVATION_SHARE
from lorajob_runtime.models.placement import GPU_TOKENS
from lorajob_runtime.system import cgroup
from lorajob_runtime.train.lora import attach
from lorajob_runtime.train.parallel import memory_budget

GIB = 2**30


def decide(**changes: object) -> memory_budget.MemoryBudget:
    given = {
        "kept_bytes_per_token": 10 * 2**20,
        "layers": 36,
        "free_bytes": 64 * GIB,
        "longest_row": 1024,
        "device_tokens": GPU_TOKENS,
        "asked": "auto",
    }
    return memory_budget.decide(**(given | changes))  # type: ignore[arg-type]


def test_with_room_activations_are_kept_and_micro_batches_fill_what_fits() -> None:
    decision = decide()

    assert not decision.gradient_checkpointing
    assert decision.token_budget == int(64 * GIB * ACTIVATION_SHARE / (10 * 2**20))


def test_when_the_longest_row_does_not_fit_activations_are_recomputed() -> None:
    assert decide(free_bytes=4 * GIB).gradient_checkpointing


def test_recomputed_a_micro_batch_is_no_larger_than_what_one_layer_and_all_inputs_leave_room_for() -> None:
    little, much = decide(free_bytes=4 * GIB, asked=True), decide(asked=True)

    assert (little.recompute_every, much.recompute_every) == (1, 1)
    assert little.token_budget == int(
        int(4 * GIB * ACTIVATION_SHARE / (10 * 2**20)) / (1 / 36 + memory_budget.CHECKPOINTED_SHARE)
    )
    assert much.token_budget == GPU_TOKENS


@pytest.mark.parametrize(
    ("gib", "every"), [(17, None), (16, 8), (15, 4), (14, 4), (13, 3), (12, 2), (10, 2), (8, 1), (4, 1), (1, 1)]
)
def test_no_more_layers_are_recomputed_than_leave_room_for_the_longest_row(gib: int, every: int | None) -> None:
    decision = decide(free_bytes=gib * GIB)

    assert (decision.recompute_every if decision.gradient_checkpointing else None) == every
    assert decision.token_budget >= 1024
    if every is not None and every > 1:
        share = (36 - 36 // every + 1 + memory_budget.CHECKPOINTED_SHARE * 36 // every) / 36
        assert 1024 * 10 * 2**20 * share <= gib * GIB * ACTIVATION_SHARE * 1.05


@pytest.mark.parametrize("tokens", [100, 2000, 100_000])
@pytest.mark.parametrize("asked", ["auto", True, False])
def test_the_micro_batch_that_is_asked_for_is_taken_and_decides_what_is_recomputed(asked: object, tokens: int) -> None:
    decision = decide(free_bytes=20 * GIB, asked=asked, asked_tokens=tokens)

    assert decision.token_budget == tokens
    assert decision.gradient_checkpointing == (asked is True or (asked == "auto" and tokens > 1228))


def test_what_is_asked_for_outranks_the_measurement() -> None:
    assert decide(asked=True).gradient_checkpointing
    assert not decide(asked=False, free_bytes=GIB).gradient_checkpointing


def test_the_budget_never_cuts_the_longest_row() -> None:
    assert decide(device_tokens=memory_budget.CPU_TOKENS, longest_row=4096).token_budget == 4096


def test_a_cpu_takes_few_tokens_at_a_time_even_with_much_memory() -> None:
    assert decide(device_tokens=memory_budget.CPU_TOKENS, longest_row=100).token_budget == memory_budget.CPU_TOKENS


def test_kept_bytes_are_those_of_the_layers_and_without_the_weights(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    adapted = attach.attach(model, LoraSpec(), seed=0, experts=False).train()

    kept = memory_budget.kept_bytes_per_token(adapted)

    hidden, intermediate, layers = 64, 128, 2
    assert kept > 4 * layers * (2 * hidden + 3 * intermediate), "each layer keeps at least its inputs and its MLP's"
    assert kept < 4 * layers * 100 * hidden


def test_free_memory_is_no_more_than_the_machine_has() -> None:
    total = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)

    assert 0 < cgroup.host_free_bytes() <= total * 1024
