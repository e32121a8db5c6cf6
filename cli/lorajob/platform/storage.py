"""Opens the storage of a run's results: at the platform's address, with the user's key or that of its Secret."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorajob.cluster import Cluster, Forbidden, NotFound
from lorajob.environment import process_variables
from lorajob.platform.platform_config import Platform
from lorajob_runtime.contract.errors import CredentialsError

if TYPE_CHECKING:
    from botocore.session import Session

    from lorajob_runtime.storage.store import Keys, Store


def connect_store(uri: str, name: str, platform: Platform, cluster: Cluster | None) -> Store:
    """The files below `<uri>/<name>/`.

    The key is that of the environment or an AWS profile, else that of the Secret that the platform names, else the
    machine's own role. Which server is said by AWS_ENDPOINT_URL_S3 and the like here, else by the platform: its address
    may be one that only pods reach. Raises CredentialsError where there is no key at all.
    """
    from lorajob_runtime.storage.open import open_store
    from lorajob_runtime.system import environment

    settings = dict(process_variables())
    keys: Keys | None = None
    if not _has_own_key():
        found, why_not = _secret(platform, cluster)
        if not found.get("AWS_ACCESS_KEY_ID") and not _has_role():
            raise CredentialsError(
                f"no S3 key for {uri}: neither AWS_ACCESS_KEY_ID nor an AWS profile is set, and {why_not}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key that may use that bucket",
            )
        settings = found | settings
        keys = _keys(found)
    return open_store(uri, name, environment.read(_with_platform(settings, platform)), keys=keys)


def _keys(found: Mapping[str, str]) -> Keys | None:
    """The key in the variables of a Secret, for the one store alone: the next run may be of another platform."""
    from lorajob_runtime.storage.store import Keys

    if not found.get("AWS_ACCESS_KEY_ID"):
        return None
    return Keys(
        access_key=found["AWS_ACCESS_KEY_ID"],
        secret_key=found.get("AWS_SECRET_ACCESS_KEY", ""),
        session_token=found.get("AWS_SESSION_TOKEN"),
    )


def _with_platform(settings: Mapping[str, str], platform: Platform) -> dict[str, str]:
    """The variables that say which S3, with the platform's for those that are not set."""
    result = dict(settings)
    storage = platform.storage
    if not result.get("AWS_ENDPOINT_URL_S3") and not result.get("AWS_ENDPOINT_URL") and storage.endpoint:
        result["AWS_ENDPOINT_URL_S3"] = storage.endpoint
    if not result.get("AWS_REGION") and not result.get("AWS_DEFAULT_REGION") and storage.region:
        result["AWS_REGION"] = storage.region
    if not result.get("LORAJOB_S3_ADDRESSING"):
        result["LORAJOB_S3_ADDRESSING"] = storage.addressing
    return result


def _has_own_key() -> bool:
    """Whether the user brought a key: in the environment, a profile or the like, not the machine's role."""
    session = _session()
    session.get_component("credential_provider").remove("iam-role")
    return session.get_credentials() is not None


def _has_role() -> bool:
    """Whether the machine has a role of its own; asks the metadata service of the cloud, where there is one."""
    return _session().get_credentials() is not None


def _session() -> Session:
    from botocore.session import Session  # slow to import, and only large data and results need it

    return Session()


def _secret(platform: Platform, cluster: Cluster | None) -> tuple[dict[str, str], str]:
    """The variables in the platform's Secret for storage, and why there are none in words that follow `and`."""
    name = platform.secrets.storage
    if name is None or cluster is None:
        return {}, "the platform names no Secret with one"
    try:
        secret: Mapping[str, Any] = cluster.get(cluster.secrets(name))
    except Forbidden:
        return {}, f"you may not read the Secret {name} of namespace {cluster.namespace}"
    except NotFound:
        return {}, f"there is no Secret {name} in namespace {cluster.namespace}"
    try:
        values = {
            key: base64.b64decode(text, validate=True).decode().strip()
            for key, text in (secret.get("data") or {}).items()
        }
    except (binascii.Error, UnicodeDecodeError):
        return {}, f"the Secret {name} holds something other than text"
    return values, f"the Secret {name} has no AWS_ACCESS_KEY_ID"
