"""Describes the process that writes to a run's prefix, so that no other is taken for it, here or on other machines."""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime.contract.plain_files import NotPlainError, read_plain
from lorajob_runtime.system import atomic
from lorajob_runtime.system.environment import Pod

_MARK = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """A process that writes to a run's prefix."""

    id: str
    """Of this start alone."""
    place: str
    """Where only one can live at a time, so that a later one there may take over: a Job, a folder with its lock."""
    namespace: str
    """Empty for a machine of one's own."""
    name: str
    """For a person."""
    process: str = ""
    """The boot of the machine, the namespace of process ids in it, and the id there."""

    def has_ended(self) -> bool:
        """Whether it was a process of this machine, which is not there any more."""
        process_id = self.process.rpartition(" ")[2]
        is_here = process_id.isdecimal() and self.process == process_identity(int(process_id))
        return is_here and not Path("/proc", process_id).exists()


def writer_here(pod: Pod | None, work: Path) -> Writer:
    """This process, whose run folder's `.work`, locked by it, is `work`."""
    start = secrets.token_hex(8)
    host = socket.gethostname()
    place = f"{host} {_mark(work)}"
    if pod is None:
        name = f"process {os.getpid()} on {host}"
        return Writer(id=start, place=place, namespace="", name=name, process=process_identity(os.getpid()))
    name = f"pod {pod.name} of namespace {pod.namespace}"
    # the Job controller makes a pod when the one before it has ended
    return Writer(id=start, place=f"job {pod.uid}" if pod.uid else place, namespace=pod.namespace, name=name)


def process_identity(process_id: int) -> str:
    """What tells a process of this machine from any other, also from a later one of its id; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {process_id}"
    except OSError:
        return ""


def _mark(work: Path) -> str:
    """What tells this folder from any other, also from one that another machine calls the same."""
    path = work / "place"
    # nothing but a mark may be read from there: it goes into storage
    with suppress(OSError, NotPlainError):
        if _MARK.fullmatch(mark := read_plain(path).decode(errors="replace").strip()):
            return mark
    mark = secrets.token_hex(8)
    atomic.replace_file(path, mark)
    return mark
