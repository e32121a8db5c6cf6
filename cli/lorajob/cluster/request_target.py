"""What a request asks of the API, in the words of RBAC: a verb, a resource, a namespace and a name. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestTarget:
    """What a request is about, in the words of RBAC."""

    verb: str
    resource: str
    """With its subresource: jobs, pods/log."""
    group: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {resource}" + (f" in namespace {self.namespace}" if self.namespace else "")


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def target_of(method: str, path: str, *, watch: bool = False) -> RequestTarget:
    """What a request asks of the API.

    >>> str(target_of("GET", "/apis/batch/v1/namespaces/team/jobs"))
    'list jobs.batch in namespace team'
    """
    parts = [part for part in path.partition("?")[0].split("/") if part]
    group = ""
    if parts[:1] == ["apis"] and len(parts) >= 3:
        group, parts = parts[1], parts[3:]
    elif parts[:1] == ["api"]:
        parts = parts[2:]
    else:
        return RequestTarget(verb=method.lower(), resource=path)
    namespace = ""
    if len(parts) >= 3 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "", "")[:3]
    verb = _VERBS.get(method, "get")
    if not name:
        verb = {"get": "watch" if watch else "list", "delete": "deletecollection"}.get(verb, verb)
    return RequestTarget(
        verb=verb,
        resource=f"{resource}/{subresource}" if subresource else resource,
        group=group,
        namespace=namespace,
        name=name,
    )
