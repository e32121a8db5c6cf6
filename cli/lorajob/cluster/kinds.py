"""Names the kinds of objects that are asked for: where the API keeps each, and what a person calls one."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

FIELD_MANAGER = "lorajob"
"""As whom the API server records what is changed here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of object of a namespace."""

    api: str
    resource: str
    """Its plural, as in paths and in RBAC."""
    noun: str
    """One of them, for a person."""

    def path(self, namespace: str | None, name: str = "") -> str:
        """The path of a namespace's objects, or of one; None: of those in all namespaces."""
        within = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
        return f"/{self.api}{within}/{self.resource}" + (f"/{quote(name, safe='')}" if name else "")


KINDS = {
    # to a person, a Job is a run
    "Job": Kind(api="apis/batch/v1", resource="jobs", noun="run"),
    "Pod": Kind(api="api/v1", resource="pods", noun="pod"),
    "ConfigMap": Kind(api="api/v1", resource="configmaps", noun="ConfigMap"),
    "Service": Kind(api="api/v1", resource="services", noun="Service"),
    "Secret": Kind(api="api/v1", resource="secrets", noun="Secret"),
    "Event": Kind(api="api/v1", resource="events", noun="Event"),
}
"""`kind` of a manifest -> where the API keeps such objects."""


def noun(resource: str) -> str:
    """One object of a resource, for a person: jobs -> run."""
    return next((kind.noun for kind in KINDS.values() if kind.resource == resource), resource)
