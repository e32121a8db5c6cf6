"""The hubs that models come from, one module each, which lists a model's files, gets them, and words its errors.

What is known of a hub without asking it, and its place in the registry, is an entry in contract/hubs.py that names the
module here. A module has `explain(error, source)`, which turns an error of the hub's own client into one of ours, and
`Client`, unless the files are on this machine already. Modules import the hubs' own clients inside functions: only the
client process runs those, since they draw progress bars, keep threads that cannot be stopped, and load slowly.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.contract.hubs import BY_NAME, Hub
from lorajob_runtime.fetch.selection import RemoteFile


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One place: a hub's ORG/NAME, `bucket/prefix`, a package's name, or a folder's path; and which revision of it."""

    kind: str
    """The name of the hub."""
    id: str
    revision: str

    def __str__(self) -> str:
        return self.hub.address(self.id)

    @property
    def hub(self) -> Hub:
        """What is known of the hub."""
        return BY_NAME[self.kind]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A model's files at one revision; `revision` is the commit where the hub tells it."""

    revision: str
    files: Sequence[RemoteFile]


class Client(ABC):
    """What talks to one hub about one model, in the client process."""

    workers = 4
    """Files that are fetched at a time."""
    verifies = False
    """Whether `get` compares a sha256 that was listed."""

    def __init__(self, source: Source, folder: Path | None) -> None:
        """`folder` is where the files will be put; None for a listing alone."""
        self._source = source
        self._folder = folder

    @abstractmethod
    def list(self) -> Listing:
        """The model's files. Raises what the hub's own client raises."""

    @abstractmethod
    def get(self, file: RemoteFile, revision: str, folder: Path) -> None:
        """Puts one file into the folder, going on from what an earlier call left there where the client can."""

    @classmethod
    def useless_files(cls, folder: Path) -> Iterable[Path]:
        """What a killed client left in the folder of a download and the next one does not go on from."""
        del folder
        return ()


class HubModule(Protocol):
    """What a module here offers."""

    Client: type[Client]

    @staticmethod
    def explain(error: Exception, source: Source) -> LorajobError:
        """The error of ours for one of the hub's own client."""


def module_of(source: Source) -> HubModule:
    """The module of a source's hub. Imports none of the hub's own client."""
    return cast(HubModule, importlib.import_module(f"{__name__}.{source.hub.module}"))
