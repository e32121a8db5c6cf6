"""How much of a node each pod of a run asks for. Pure."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from lorajob.errors import UsageError
from lorajob.platform import quantities
from lorajob_runtime.contract.spec import RunSpec
from lorajob_runtime.models import lora_weights, memory_plan, preflight

if TYPE_CHECKING:
    # its module reads YAML, which not every command that comes here does
    from lorajob.platform.platform_config import Platform

SCRATCH_BYTES = 10 * quantities.GIBIBYTE
"""What /tmp may hold: sockets of the process group, compiled kernels, temporary files of libraries."""


def resources(spec: RunSpec, platform: Platform) -> dict[str, dict[str, str]]:
    """The container's requests and limits.

    Memory and GPUs are limits as well as requests: a pod that got more memory than it asked for would be the first to
    be killed when its node runs out. CPU has no limit, since one would slow down what idle cores could do. A node's
    disk is asked for up to the work folder's size; the limit leaves room for /tmp and logs. Where CPUs stand in for
    GPUs as many processes run as GPUs are wanted, and the node needs none.
    """
    sizes = platform.resources
    gpus = {} if platform.device == "cpu" else {platform.scheduling.gpu_resource: str(spec.resources.gpus)}
    memory = memory_bytes(spec, platform)
    work = quantities.amount(sizes.work, "the platform's resources.work")
    return {
        "requests": {
            "cpu": quantities.cores(cpu_cores(spec, platform)),
            "memory": quantities.size(memory),
            "ephemeral-storage": quantities.size(work),
            **gpus,
        },
        "limits": {
            "memory": quantities.size(memory),
            "ephemeral-storage": quantities.size(work + SCRATCH_BYTES),
            **gpus,
        },
    }


def cpu_cores(spec: RunSpec, platform: Platform) -> Fraction:
    """Cores of one node's pod: what the spec says, else the platform's share of every GPU."""
    if spec.resources.cpu != "auto":
        return quantities.amount(spec.resources.cpu, path="resources.cpu")
    share = quantities.amount(str(platform.resources.cpu_per_gpu), "the platform's resources.cpuPerGpu")
    return share * spec.resources.gpus


def memory_bytes(spec: RunSpec, platform: Platform) -> Fraction:
    """Host memory of one node's pod, in bytes: what the spec says, else enough and at least the platform's share.

    The platform's share of every GPU is what is fair on its nodes. It is raised where a model whose sizes are known
    would not get through it: weights go to a GPU tensor by tensor, so each process holds a few of them at a time; where
    CPUs stand in for GPUs each process holds them all. To this come the processes themselves, a checkpoint that is
    being written, and /dev/shm, whose pages count as the container's. The page cache of the weights counts too, but is
    given back under pressure.
    """
    if spec.resources.memory != "auto":
        given = quantities.amount(spec.resources.memory, path="resources.memory")
        if given < quantities.MEBIBYTE:
            message = f"resources.memory is {spec.resources.memory!r}, in bytes: it must be a size like 64Gi"
            raise UsageError(message, path="resources.memory")
        return given
    gpus = spec.resources.gpus
    share = quantities.amount(platform.resources.memory_per_gpu, "the platform's resources.memoryPerGpu") * gpus
    shapes = preflight.architecture_of(spec.model)
    if shapes is None:
        return share
    shared = quantities.amount(platform.resources.shared_memory, "the platform's resources.sharedMemory")
    each = memory_plan.host_bytes(shapes)
    if platform.device == "cpu":
        each += memory_plan.weight_bytes(shapes, spec)
    experts = lora_weights.wants_experts(shapes, spec.lora)
    trained = lora_weights.adapter_parameters(shapes, spec.lora, experts=experts)
    checkpoint = trained * memory_plan.CHECKPOINT_BYTES
    needed = gpus * each + checkpoint + shared
    gibibytes = math.ceil(needed / quantities.GIBIBYTE)
    return max(share, Fraction(gibibytes * quantities.GIBIBYTE))
