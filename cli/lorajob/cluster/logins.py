"""Logs in by other programs: exec plugins of clouds, and OIDC, through the `kubernetes` package.

Imported only for a kubeconfig that asks for one: loading `kubernetes` takes half a second.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.kube_config import ConfigNode

from lorajob.cluster.access import Login
from lorajob.cluster.errors import Unauthenticated

_BEARER = "Bearer "


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What a login gave: a token, or a client certificate and its key as PEM texts."""

    token: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)


def log_in(login: Login) -> Credentials:
    """Runs the login. Raises Unauthenticated with what the other program says."""
    try:
        credentials = _run_plugin(login) if login.kind == "exec" else _ask_provider(login)
    # AttributeError: the package stumbles over a plugin that fails on a terminal
    except (ConfigException, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        detail = "" if isinstance(error, AttributeError) else f": {error}"
        program = login.settings.get("command") or login.settings.get("name") or login.kind
        raise Unauthenticated(
            f"the login of user {login.user} by {program} failed{detail}", hint=_hint(login, error)
        ) from error
    if credentials.token is None and credentials.certificate is None:
        raise Unauthenticated(
            f"the login of user {login.user} gave neither a token nor a certificate", hint=_hint(login, None)
        )
    return credentials


def _run_plugin(login: Login) -> Credentials:
    """An exec plugin: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/."""
    plugin = ExecProvider(
        ConfigNode("exec", dict(login.settings)),
        str(login.files[0].absolute().parent),
        ConfigNode("cluster", dict(login.cluster)),
    )
    status = plugin.run()
    return Credentials(
        token=status.get("token"), certificate=status.get("clientCertificateData"), key=status.get("clientKeyData")
    )


def _ask_provider(login: Login) -> Credentials:
    """An auth-provider, whose renewed tokens go back into the kubeconfig, as kubectl does."""
    configuration = Configuration()
    load_kube_config(
        config_file=os.pathsep.join(str(file) for file in login.files),
        context=login.context,
        client_configuration=configuration,
    )
    token = configuration.api_key.get("BearerToken")
    return Credentials(token=token.removeprefix(_BEARER) if token else None)


def _hint(login: Login, error: Exception | None) -> str:
    if isinstance(error, FileNotFoundError):
        return str(
            login.settings.get("installHint") or f"install {login.settings.get('command')}, or choose another --context"
        )
    return "log in again with the tool of your cloud, or choose another --context"
