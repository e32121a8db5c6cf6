"""What keeps keys in the process that needs them. Standard library only; works on Linux without any privilege.

A process that holds keys is not dumpable: its memory, environment and open files in /proc belong to root. One that may
run a repository's code is confined: Landlock (https://docs.kernel.org/userspace-api/landlock.html) keeps it from files
with keys, and from looking into any process that is not confined with it.

Run as a program, `python key_isolation.py HIDDEN COMMAND…` becomes COMMAND, confined. HIDDEN is a JSON list.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on every architecture that we have an image for."""
_ASK_VERSION = 1
_READ_FILE = 1 << 2
_PATH_BENEATH = 1


def keep_private() -> None:
    """Has the kernel show this process to root alone, from now on and until it becomes another program.

    No process of the same user can then read its environment or memory, or trace it, and it leaves no core file.
    """
    _libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def take(keys: Mapping[str, str]) -> None:
    """Makes keys that came over a pipe variables of this process: /proc shows only those that it was started with."""
    keep_private()
    os.environ.update(keys)


def wipe_environment(kept: Iterable[str]) -> None:
    """Takes from /proc/self/environ all variables but `kept`; to this process they stay.

    A process with keys reads and uploads what training wrote, and a link there may lead to that file.
    """
    names = {os.fsencode(name) for name in kept}
    environ = ctypes.POINTER(ctypes.c_void_p).in_dll(_libc(), "environ")
    addresses = list(itertools.takewhile(lambda each: each is not None, (environ[each] for each in itertools.count())))
    for address in addresses:
        entry = ctypes.string_at(address)
        name, _, value = entry.partition(b"=")
        if name and name not in names:
            # a copy elsewhere takes its place
            os.putenv(name, value)
            ctypes.memset(address, 0, len(entry))


def can_confine() -> bool:
    """Whether this kernel has Landlock, and the container runtime lets it be used."""
    return int(_libc().syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)) > 0


def confined(command: Iterable[str], hidden: Iterable[Path]) -> list[str]:
    """A command that runs `command` where the files and folders `hidden` cannot be opened; nothing hidden: as it is.

    Where the kernel cannot do this the command runs all the same (`can_confine` tells).
    """
    paths = [str(path) for path in hidden]
    return [sys.executable, "-P", "-S", "-E", __file__, json.dumps(paths), *command] if paths else [*command]


def confine(hidden: Iterable[Path]) -> None:
    """Keeps this process and its children from the contents of some files and folders, for good.

    Landlock lists what may be read. So that is everything beside the way to each hidden path: what comes into a folder
    on that way later cannot be read either. Raises OSError where the kernel refuses.
    """
    forbidden = {path.resolve() for path in hidden}
    attributes = struct.pack("Q", _READ_FILE)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in _beside(Path("/"), forbidden):
            _allow(ruleset, path)
        if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _beside(folder: Path, forbidden: set[Path]) -> Iterator[Path]:
    """The largest parts of a folder that hold none of the forbidden paths; none of one that we may not list."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if path in forbidden or entry.is_symlink():
            # where a link leads is what counts
            continue
        if any(each.is_relative_to(path) for each in forbidden):
            yield from _beside(path, forbidden)
        else:
            yield path


def _allow(ruleset: int, path: Path) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # gone meanwhile, or not ours to open: it stays forbidden
    try:
        rule = struct.pack("=Qi", _READ_FILE, place)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: int | bytes) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _become(hidden: list[str], command: list[str]) -> None:
    if can_confine():
        confine(map(Path, hidden))
    os.execvp(command[0], command)  # noqa: S606 the command is the supervisor's own, and there is no shell


if __name__ == "__main__":
    _become(json.loads(sys.argv[1]), sys.argv[2:])
