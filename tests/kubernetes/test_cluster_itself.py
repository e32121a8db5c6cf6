"""The cluster that the other tests of this folder stand on."""

from __future__ import annotations

import json

from cluster_fixtures import TestCluster, restricted_pod
from fakes.hub_server import HubServer
from s3_servers import S3Server

DOWNLOAD = """
import hashlib, json, pathlib
from lorajob_runtime import fetch
from lorajob_runtime.contract import spec
from lorajob_runtime.system import environment
model = fetch.fetch(spec.parse({"model": {"name": "smollm2-135m"}}).model, environment=environment.read(), notify=print)
weights = (model.path / "model.safetensors").read_bytes()
print(json.dumps({"source": model.source, "bytes": len(weights)}))
"""

PUT = """
import boto3, os
from botocore import config
client = boto3.client("s3", region_name="us-east-1", config=config.Config(s3={"addressing_style": "path"}))
client.put_object(Bucket=os.environ["BUCKET"], Key="from/a/pod", Body=b"it was here")
"""


def test_a_namespace_enforces_restricted_pods(cluster: TestCluster, namespace: str) -> None:
    labels = cluster.run_kubectl("get", "namespace", namespace, "-o", "jsonpath={.metadata.labels}")

    assert '"pod-security.kubernetes.io/enforce":"restricted"' in labels


def test_the_node_offers_gpus_that_nothing_backs(cluster: TestCluster) -> None:
    node = json.loads(cluster.run_kubectl("get", "nodes", "-o", "json"))["items"][0]

    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"


def test_an_api_server_alone_takes_jobs_and_runs_none(api_server: TestCluster) -> None:
    # nobody removes objects of it, so this asks without creating
    command = ("create", "job", "some", "--image=none", "--dry-run=server", "-o", "jsonpath={.metadata.uid}")

    assert api_server.run_kubectl(*command)
    assert not json.loads(api_server.run_kubectl("get", "nodes", "-o", "json"))["items"]


def test_a_pod_downloads_real_weights_from_the_hub(
    cluster: TestCluster, namespace: str, image: str, hub_on_bridge: HubServer
) -> None:
    variables = {"MODELSCOPE_ENDPOINT": hub_on_bridge.url, "HF_ENDPOINT": hub_on_bridge.url, "HF_HUB_DISABLE_XET": "1"}
    pod = restricted_pod("download", image, ["python", "-c", DOWNLOAD], variables)

    said = cluster.run_pod(namespace, pod).splitlines()[-1]

    assert json.loads(said) == {"source": "modelscope:HuggingFaceTB/SmolLM2-135M-Instruct", "bytes": 269060552}


def test_a_pod_writes_to_s3(cluster: TestCluster, namespace: str, image: str, s3_on_bridge: S3Server) -> None:
    bucket = s3_on_bridge.make_bucket()
    pod = restricted_pod("put", image, ["python", "-c", PUT], {**s3_on_bridge.variables(), "BUCKET": bucket})

    cluster.run_pod(namespace, pod)

    body = s3_on_bridge.client().get_object(Bucket=bucket, Key="from/a/pod")["Body"].read()
    assert body == b"it was here"
