"""The counter-based generator of dropout: known answers, and the same numbers from torch and from the Triton kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from lorajob_runtime.train.lora import dropout, philox
from lorajob_runtime.train.lora.dropout import Draw

KEY = 2**61 + 987654321

IN_TRITON = """
import torch
from lorajob_runtime.train.lora import philox
for count in (1, 1023, 8192, 8193, 3 * 8192 + 5):
    for dtype in (torch.bfloat16, torch.float32):
        source = torch.randn(count).to(dtype)
        found, kept = torch.empty_like(source), philox.kept(count, KEY, 0.1, source.device)
        philox.write_by_kernel(source, found, KEY, 0.1)
        assert torch.equal(found, source * kept), (count, dtype)
        philox.write_by_kernel(source, source, KEY, 0.1)
        assert torch.equal(found, source), (count, dtype)
"""

COMPILED = """
import json
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lorajob_runtime.train.lora import philox, philox_kernel
found = {}
numbers = dict.fromkeys(["size", "key0", "key1", "threshold"], "i32")
constants = {"rounds": philox.ROUNDS, "lane_size": philox.LANE}
aligned = {(place,): [["tt.divisibility", 16]] for place in range(3)}
for capability in (80, 90):
    source = ASTSource(
        fn=philox_kernel.write_block,
        signature={"source": "*bf16", "target": "*bf16", **numbers, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
        attrs=aligned,
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm
    moves = [made["ptx"].count(f"{kind}.global.v4.b32") for kind in ("ld", "st")]
    found[capability] = [len(made["cubin"]) > 0, *moves]
print(json.dumps(found))
"""


def words(*values: int) -> list[torch.Tensor]:
    return [torch.tensor([value]) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_ten_rounds_give_the_known_answers_of_the_authors(
    counter: tuple[int, ...], key: tuple[int, int], expected: str
) -> None:
    found = philox.philox4x32(words(*counter), key, 10)

    assert " ".join(f"{int(word):08x}" for word in found) == expected


def test_the_asked_share_is_kept_and_neighbours_do_not_depend_on_each_other() -> None:
    kept = philox.kept(2**20, KEY, 0.1, torch.device("cpu")).float()

    assert float(kept.mean()) == pytest.approx(0.9, abs=0.001)
    dropped = 1 - kept
    for distance in (1, 7, philox.LANE, 8 * philox.LANE):
        assert float((dropped[distance:] * dropped[:-distance]).mean()) == pytest.approx(0.01, abs=0.0006)


def test_what_an_element_gets_does_not_depend_on_how_many_there_are() -> None:
    many, few = (philox.kept(count, KEY, 0.5, torch.device("cpu")) for count in (20000, 9000))

    assert torch.equal(many[:9000], few)
    assert not torch.equal(philox.kept(9000, KEY + 1, 0.5, torch.device("cpu")), few)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_copy_and_in_place_they_drop_the_same(dtype: torch.dtype) -> None:
    rows = torch.randn(33, 300).to(dtype)
    draw = Draw(probability=0.3, key=KEY)

    masked = dropout.masked(rows, draw, None)

    assert torch.equal(masked, rows * philox.kept(rows.numel(), KEY, 0.3, rows.device).view(33, 300))
    assert torch.equal(dropout.mask_(rows, draw, None), masked)


@pytest.mark.slow
def test_the_triton_kernel_gives_the_numbers_of_torch() -> None:
    pytest.importorskip("triton")

    subprocess.run(
        [sys.executable, "-c", f"KEY = {KEY}{IN_TRITON}"], check=True, env=os.environ | {"TRITON_INTERPRET": "1"}
    )


@pytest.mark.slow
def test_the_triton_kernel_compiles_for_gpus_and_moves_sixteen_bytes_at_a_time() -> None:
    pytest.importorskip("triton")

    made = json.loads(subprocess.check_output([sys.executable, "-c", COMPILED]))

    assert made == {"80": [True, 8, 8], "90": [True, 8, 8]}
