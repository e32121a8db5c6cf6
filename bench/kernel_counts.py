"""Kernels and bytes of a decoder layer on a GPU, counted without one.

    python bench/kernel_counts.py                                Qwen3-8B, 2,048 tokens
    python bench/kernel_counts.py --model glm-4.5-air --json now.json
    python bench/kernel_counts.py --beside before.json           and what has changed since that was written

Training's own code runs on tensors that say they are on an H100 and have no memory (torch's FakeTensorMode), and every
operation that reaches the GPU is counted: bf16 weights, document attention by the flash kernel, the adapter and the
dropout of the spec's defaults. A layer is what a model of three layers takes more than one of two. Views and
allocations launch nothing; every other operation counts as one kernel, which reads and writes each of its tensors once:
a Triton kernel or an operation of lorajob's own too. How fast a kernel is, and what caches spare it, is not in it.

A script called kernels.py would be taken for the package of that name, which transformers looks for.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from counting import coefficients
from counting.layers import Counted, MicroBatch, count
from counting.operations import Count, Counts, total
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.spec import parse
from lorajob_runtime.train.lora import dropout

ROW = "| {} | {} | {} | {} | {} |"


def as_json(counted: Counted, about: dict[str, Any]) -> dict[str, Any]:
    return about | dataclasses.asdict(counted)


def from_json(document: dict[str, Any]) -> Counted:
    parts = {
        part: {
            name: {operation: Count(**values) for operation, values in operations.items()}
            for name, operations in document[part].items()
        }
        for part in ("layer", "ends")
    }
    return Counted(**parts)


def operations_table(counts: Counts, tokens: int) -> list[str]:
    """By pass and operation, what moves most first; bytes and operations of a token."""
    lines = [ROW.format("pass", "operation", "kernels", "MB a token", "of products"), "|---|---|---|---|---|"]
    for name, operations in counts.items():
        for operation, each in sorted(operations.items(), key=lambda item: -item[1].moved - item[1].operands):
            if each.kernels:
                moved, operands = (f"{size / tokens / 1e6:.4f}" if size else "" for size in (each.moved, each.operands))
                lines.append(ROW.format(name, f"`{operation}`", each.kernels, moved, operands))
    return lines


def totals_table(counted: Counted, tokens: int, before: tuple[Counted, int] | None) -> list[str]:
    """Of a layer and of what is beside the layers; with `before`, what these were then."""
    sides = [("", counted, tokens)] if before is None else [("before: ", *before), ("now: ", counted, tokens)]
    head = (
        "| | kernels | dispatches | MB a token beside products | MB a token of products | MFLOP a token of products |"
    )
    lines = [head, "|---|---|---|---|---|---|"]
    for said, side, of in sides:
        parts = {"a layer, forward": total(side.layer, "forward"), "a layer, backward": total(side.layer, "backward")}
        parts |= {"a layer": total(side.layer), "first and last layer, embedding, head, loss": total(side.ends)}
        for name, each in parts.items():
            moved, operands, products = (size / of / 1e6 for size in (each.moved, each.operands, each.products))
            lines.append(
                f"| {said}{name} | {each.kernels} | {each.dispatches} | {moved:.3f} | {operands:.3f} | {products:.1f} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen3-8b", help="a name of the catalog, or a folder with a config.json")
    parser.add_argument("--tokens", type=int, default=2048, help="of a micro-batch, in documents of 128")
    parser.add_argument("--layer", type=int, help="which one; the first that has experts, where some have")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there")
    parser.add_argument("--beside", type=Path, metavar="FILE", help="compare with counts that --json wrote")
    parser.add_argument("--no-compiler", action="store_true", help="dropout without the Triton kernel, as in the image")
    parser.add_argument("--coefficients", action="store_true", help="the rows of models/kernel_costs.py, and no table")
    arguments = parser.parse_args()
    if arguments.coefficients:
        found = [coefficients.counted(*kind) for kind in coefficients.KINDS]
        print("\n".join([*(coefficients.as_source(each.row) for each in found), f"HEAD_BYTES = {found[1].head_bytes}"]))
        return
    folder = Path(arguments.model)
    stored = (folder / "config.json").read_text() if folder.is_dir() else None
    config = catalog.get(arguments.model).config if stored is None else json.loads(stored)
    layer = arguments.layer if arguments.layer is not None else config.get("first_k_dense_replace", 0)
    length = min(128, arguments.tokens)
    batch = MicroBatch(documents=arguments.tokens // length, length=length, targets=length // 3)
    draws = dropout.FIRST if arguments.no_compiler else dropout.NEWEST
    counted = count(config, parse({"model": {"name": "qwen3-8b"}}), [batch], layer=layer, draws=draws)[0]
    before = None
    if arguments.beside is not None:
        document = json.loads(arguments.beside.read_text())
        before = from_json(document), int(document["tokens"])
    print(f"{arguments.model}, layer {layer}, {batch.tokens} tokens\n")
    print("\n".join([*operations_table(counted.layer, batch.tokens), ""]))
    print("\n".join(totals_table(counted, batch.tokens, before)))
    if arguments.json is not None:
        about = {"model": arguments.model, "layer": layer, "tokens": batch.tokens}
        arguments.json.write_text(json.dumps(as_json(counted, about), indent=1) + "\n")


if __name__ == "__main__":
    main()
