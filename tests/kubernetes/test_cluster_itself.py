"""The cluster that the other tests of this folder stand on."""

from __future__ import annotations

from cluster_fixtures import TestCluster


def test_a_namespace_enforces_restricted_pods(cluster: TestCluster, namespace: str) -> None:
    labels = cluster.run_kubectl("get", "namespace", namespace, "-o", "jsonpath={.metadata.labels}")

    assert '"pod-security.kubernetes.io/enforce":"restricted"' in labels
