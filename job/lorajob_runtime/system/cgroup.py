"""What this process may use of the machine, by its control groups: cores, memory, and kills for memory."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, less where the container's quota is smaller."""
    bound = len(os.sched_getaffinity(0))
    for group in _cgroups():
        with contextlib.suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                bound = min(bound, max(1, int(quota) // int(period)))
    return bound


def host_bytes() -> int:
    """All memory of this machine, or of the container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def host_free_bytes() -> int:
    """What the host or the container still has: the smaller of MemAvailable and the cgroup's limit less its use.

    Files that the container has read count as its use until their pages are wanted; their pages are free memory too.
    """
    free = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
        free = min(free, int(text) - int(used.read_text()) + files)
    return max(0, free)


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
