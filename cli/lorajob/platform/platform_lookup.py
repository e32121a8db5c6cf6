"""Finds the platform in force: a file that the user names, else the namespace's ConfigMap, else the user's own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorajob.environment import config_folder, process_variables
from lorajob.errors import UsageError
from lorajob.platform.platform_config import Platform
from lorajob.platform.platform_parsing import FORM, parse
from lorajob.spec import spec_file
from lorajob.spec.spec_file import MissingFileError
from lorajob_runtime.contract.errors import ConfigError

if TYPE_CHECKING:
    from lorajob.cluster import Cluster

CONFIG_MAP = "lorajob-platform"
CONFIG_KEY = "platform.yaml"
FILE_VARIABLE = "LORAJOB_PLATFORM"
OWN_FILE = Path("lorajob/platform.yaml")
"""Below XDG_CONFIG_HOME, else ~/.config."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedPlatform:
    """A platform and where it comes from, for a person."""

    platform: Platform
    source: str


def load(
    cluster: Cluster | None, file: Path | str | None = None, variables: Mapping[str, str] | None = None
) -> LoadedPlatform:
    """The platform in force: `file`, else LORAJOB_PLATFORM, else the namespace's ConfigMap, else the user's own file.

    Without a cluster there is no ConfigMap. Raises ConfigError when there is none or it is broken, UsageError when a
    file that is named is not there, and a ClusterError when the cluster does not give it, or has no such namespace.
    """
    variables = process_variables() if variables is None else variables
    named = named_file(file, variables)
    if named is not None:
        return _from_file(named)
    if cluster is not None and (found := _from_config_map(cluster)) is not None:
        return found
    own = config_folder(variables) / OWN_FILE
    if own.exists():
        return _from_file(own)
    if cluster is not None:
        cluster.check_namespace()
    looked = f"ConfigMap {CONFIG_MAP} in namespace {cluster.namespace}" if cluster is not None else "cluster"
    raise ConfigError(
        f"no platform is configured: there is no {looked}, and no {own}",
        hint="have the chart installed in the namespace, or give a file with --platform; see docs/platform.md",
    )


def named_file(file: Path | str | None, variables: Mapping[str, str] | None = None) -> Path | None:
    """The file that the user names, by --platform or LORAJOB_PLATFORM: with one, no cluster is asked."""
    named = file or (process_variables() if variables is None else variables).get(FILE_VARIABLE)
    return Path(named).expanduser() if named else None


def _from_file(path: Path) -> LoadedPlatform:
    try:
        values = spec_file.load(path, FORM).values
    except MissingFileError as error:
        raise UsageError(
            f"the platform file {path} does not exist", hint=f"correct --platform or {FILE_VARIABLE}"
        ) from error
    except UsageError as error:
        raise ConfigError(error.message, hint="correct the file; docs/platform.md explains every field") from error
    return LoadedPlatform(platform=parse(values, str(path)), source=str(path))


def _from_config_map(cluster: Cluster) -> LoadedPlatform | None:
    from lorajob.cluster import NotFound

    try:
        config_map = cluster.get(cluster.config_maps(CONFIG_MAP))
    except NotFound:
        return None
    place = f"ConfigMap {CONFIG_MAP} in namespace {cluster.namespace}"
    data = config_map.get("data") or {}
    if CONFIG_KEY not in data:
        there = f"it has {', '.join(data)}" if data else "it is empty"
        raise ConfigError(f"{place} has no key {CONFIG_KEY}: {there}", hint="have the chart installed again")
    place = f"{place}, {CONFIG_KEY}"
    try:
        values = spec_file.loads(data[CONFIG_KEY], place, FORM).values
    except UsageError as error:
        raise ConfigError(error.message, hint="the people who installed the chart must correct it") from error
    return LoadedPlatform(platform=parse(values, place), source=place)
