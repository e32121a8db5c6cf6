"""How many tokens a second the recipe models would train on 1 to 64 GPUs, by what connects them: worked out, not run.

    python bench/scaling.py                              H100s with rows of 140 tokens, as huanhuan.json has them
    python bench/scaling.py --gpu a100 --row-tokens 1024

It is what `lorajob plan` shows, for many numbers of GPUs: up to 8 on one node, then whole nodes. Beside the pace stands
what one more doubling of the GPUs was worth. A dash: the model does not fit.
"""

from __future__ import annotations

import argparse

from lorajob.plan import gpus as gpu_module
from lorajob.plan import run_plan, speed
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.spec import parse
from lorajob_runtime.models import gpu_speeds, placement
from lorajob_runtime.models.gpu_speeds import NETWORKS, Network

COUNTS = ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 4), (8, 8))


def pace(model: str, kind: str, count: tuple[int, int], row_tokens: float | None, network: Network) -> float | None:
    """Tokens a second of all GPUs together; None where the model does not fit."""
    gpus, nodes = count
    spec = parse({"model": {"name": model}, "resources": {"gpus": gpus, "nodes": nodes, "gpuType": kind}})
    shapes, gpu = run_plan.check(spec), gpu_module.find(spec, None)
    assert shapes is not None
    if gpu.size is None or gpu.speed is None:
        raise SystemExit(f"--gpu is {kind!r}: it must be a GPU whose memory its name tells, like h100")
    placed = placement.choose(shapes, spec, gpus=gpus, nodes=nodes, gpu_bytes=gpu.size)
    if not placed.fits:
        return None
    usual = placement.usual_tokens(shapes, spec, placed.estimate, gpus=gpus, nodes=nodes, gpu_bytes=gpu.size)
    step = speed.step_of(shapes, spec, placed, gpu.speed, usual, row_tokens, count, network)
    return gpus * nodes * step.tokens / step.total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default="h100", help="its name, as resources.gpuType has it")
    parser.add_argument("--row-tokens", type=float, default=140.0, help="of a mean row; 16 rows a GPU make a step")
    arguments = parser.parse_args()
    if gpu_speeds.named(arguments.gpu) is None:
        raise SystemExit(f"--gpu is {arguments.gpu!r}: no GPU of that name is known")
    print("| model | between nodes | " + " | ".join(str(gpus * nodes) for gpus, nodes in COUNTS) + " |")
    print("|" + "---|" * (len(COUNTS) + 2))
    for model in catalog.entries():
        for network in NETWORKS:
            cells, before = [], None
            for count in COUNTS:
                found = pace(model, arguments.gpu, count, arguments.row_tokens, network)
                gained = "" if found is None or before is None else f" ({found / before:.2f}x)"
                cells.append("-" if found is None else f"{found:,.0f}{gained}")
                before = found
            print(f"| {model} | {network} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
