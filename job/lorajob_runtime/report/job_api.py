"""Makes the one call of a run to the Kubernetes API: it sets an annotation of its own Job, as its ServiceAccount.

By the standard library, since the Kubernetes client would be a heavy import in every supervisor for a single PATCH.
"""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path

from lorajob_runtime.system.environment import Pod

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts the token and the cluster's certificate authority."""

TIMEOUT_SECONDS = 10.0


class RefusedError(OSError):
    """The API server does not allow it, and will not the next time."""


def annotate_job(pod: Pod, name: str, value: str, *, account: Path = ACCOUNT) -> None:
    """Sets one annotation of the pod's Job.

    Raises RefusedError when the pod may not (no token, no right, refused by policy, no such Job), OSError when the API
    server cannot be reached or has a fault.
    """
    try:
        # read again each time: the kubelet renews it
        token = (account / "token").read_text().strip()
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except OSError as error:
        raise RefusedError(f"the pod has no ServiceAccount token: {error}") from error
    body = json.dumps({"metadata": {"annotations": {name: value}}})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
    connection = http.client.HTTPSConnection(pod.api_server, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request("PATCH", f"/apis/batch/v1/namespaces/{pod.namespace}/jobs/{pod.job}", body, headers)
        response = connection.getresponse()
        answer = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"the API server broke the connection off: {error}") from error
    finally:
        connection.close()
    if response.status >= 500 or response.status in (409, 429):
        raise OSError(f"the API server answered {response.status}")
    if response.status >= 400:
        raise RefusedError(f"the API server refused it ({response.status}): {_message(answer)}")


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer[:300].decode(errors="replace")
