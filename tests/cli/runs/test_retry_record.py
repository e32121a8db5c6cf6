"""What an interrupted retry wrote down and cannot be read any more: said, never taken for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from run_objects import NAME

from fakes.api_server import Reply, api_server
from lorajob.cluster import Cluster
from lorajob.cluster.access import Access
from lorajob.runs import retry
from lorajob_runtime.contract.errors import ConfigError


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"other.json": "{}"},
        {"retry.json": ""},
        {"retry.json": '{"was": "u1", "manifests": [{"kind"'},
        {"retry.json": "null"},
        {"retry.json": "[]"},
        {"retry.json": '{"was": "u1"}'},
        {"retry.json": '{"was": 1, "manifests": [{"kind": "Job"}]}'},
        {"retry.json": '{"was": "u1", "manifests": []}'},
        {"retry.json": '{"was": "u1", "manifests": [3]}'},
    ],
)
def test_a_record_that_can_not_be_read_is_said_and_nothing_is_done(data: Any) -> None:
    with api_server() as server, Cluster(Access(server=server.address, namespace="team", source="test")) as client:
        server.answers += [Reply(200, {"kind": "ConfigMap", "metadata": {}, "data": data})]

        with pytest.raises(
            ConfigError, match=f"ConfigMap {NAME}-retry in namespace team is not a readable record"
        ) as caught:
            retry.retry(client, NAME, build=lambda spec: pytest.fail(f"nothing is made: {spec}"))

    assert f"kubectl delete configmap {NAME}-retry -n team" in caught.value.hint
    assert [request.method for request in server.requests] == ["GET"]
