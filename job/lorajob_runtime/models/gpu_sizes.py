"""The memory of GPUs by what they are called, and the numbers of GPUs that a plan tries."""

from __future__ import annotations

GIBIBYTE = 2**30

GPU_COUNTS = tuple([(gpus, 1) for gpus in range(1, 9)] + [(8, nodes) for nodes in range(2, 9)])
"""(GPUs of a node, nodes): any number on one node of 8, then whole nodes, the fewest first."""

GPU_SIZES = {24: 22.0, 40: 39.3, 48: 44.3, 80: 79.1, 96: 94.9, 141: 139.7, 192: 178.3}
"""What a GPU's memory is called in GB -> GiB that torch finds on the one of that name that has the least of it.

L4, A100-40, L40S, A100-80, H20, H200 and B200: error correction and what the driver keeps are taken off.
"""
