"""What the operating system says about processes: their lifetime, cores, GPUs, memory kills. Standard library only.

Run as a program it is a shim: `python processes.py PARENT COMMAND…` becomes COMMAND, bound to die with its parent. A
shim, because code between fork and exec of a process that has threads may hang (subprocess warns of preexec_fn).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_MAJOR_OF_CAPABILITY = 75
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR of cuda.h."""
_MINOR_OF_CAPABILITY = 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR."""
_AMPERE = (8, 0)
"""Compute capability of the first GPUs that multiply bf16."""
OLDEST_CAPABILITY = (7, 5)
"""Compute capability of the oldest GPUs that torch's packages for CUDA 13 have kernels for (Turing)."""


def die_with_parent(parent: int | None = None) -> None:
    """Has the kernel kill this process when its parent is gone, however that ends.

    `parent` is the expected parent's process id: where it is gone already, this process ends at once.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def be_first_out_of_memory() -> None:
    """Has the kernel take this process before others of the container when memory runs out.

    A supervisor that survives can say what happened, and that trying again would not help.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def bound_to_parent(command: Iterable[str], *, parent: int | None) -> list[str]:
    """A command that runs `command` so that it dies with its parent; None: whoever starts it."""
    return [sys.executable, "-P", "-S", "-E", __file__, str(parent or 0), *command]


def kill_tree(process_id: int) -> None:
    """Kills a process and all that descend from it, whatever groups and sessions they made for themselves."""
    # the first one first: it would take the end of its children for an end of its own
    for each in [process_id, *_descendants(process_id)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def _descendants(process_id: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # the name in parentheses may hold anything, so the fields are counted from its end
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = []
    waiting = [process_id]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, less where the container's quota is smaller."""
    bound = len(os.sched_getaffinity(0))
    for group in _cgroups():
        with contextlib.suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                bound = min(bound, max(1, int(quota) // int(period)))
    return bound


def visible_gpus() -> int:
    """How many GPUs torch would see, asked of the driver: importing torch takes seconds. 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def host_bytes() -> int:
    """All memory of this machine, or of the container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def gpus_multiply_bf16() -> bool | None:
    """Whether every GPU that torch would see is of Ampere or newer; None where there is none to ask."""
    oldest = oldest_capability()
    return None if oldest is None else oldest >= _AMPERE


def oldest_capability() -> tuple[int, int] | None:
    """The lowest compute capability of the GPUs that torch would see; None where there is none to ask."""
    majors = _of_each_gpu(
        ctypes.c_int, lambda driver, value, gpu: driver.cuDeviceGetAttribute(value, _MAJOR_OF_CAPABILITY, gpu)
    )
    minors = _of_each_gpu(
        ctypes.c_int, lambda driver, value, gpu: driver.cuDeviceGetAttribute(value, _MINOR_OF_CAPABILITY, gpu)
    )
    return min(zip(majors, minors, strict=True), default=None)


def gpu_bytes() -> int | None:
    """Memory of the smallest GPU that torch would see, asked of the driver; None where there is none to ask."""
    sizes = _of_each_gpu(ctypes.c_size_t, lambda driver, value, gpu: driver.cuDeviceTotalMem_v2(value, gpu))
    return min(sizes, default=None)


def _of_each_gpu(form: type[Any], ask: Callable[[Any, Any, ctypes.c_int], int]) -> list[int]:
    """What the driver puts into a number of a C type for each GPU; empty where it does not answer for all."""
    found = []
    if count := visible_gpus():
        driver = ctypes.CDLL("libcuda.so.1")
        for number in range(count):
            gpu, value = ctypes.c_int(0), form(0)
            if driver.cuDeviceGet(ctypes.byref(gpu), number) or ask(driver, ctypes.byref(value), gpu):
                return []
            found.append(int(value.value))
    return found


def memory_kills() -> int:
    """How often the kernel killed a process of this container for memory, so far."""
    for group in _cgroups():
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                match = re.search(r"^oom_kill (\d+)$", (group / name).read_text(), re.MULTILINE)
                if match:
                    return int(match[1])
    return 0


def _cgroups() -> list[Path]:
    """Folders of this process's control groups: version 2's, or version 1's for memory."""
    folders = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            mount = Path("/sys/fs/cgroup")
            if controllers == "":
                folders += [mount / path.lstrip("/"), mount]
            elif "memory" in controllers.split(","):
                folders += [mount / "memory" / path.lstrip("/"), mount / "memory"]
    return folders


def _become(parent: int, command: list[str]) -> None:
    die_with_parent(parent or None)
    os.execvp(command[0], command)  # noqa: S606 the command is the supervisor's own, and there is no shell


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
