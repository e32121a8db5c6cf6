"""Which key and which server storage is reached with: those of each run's own platform, whatever was asked before."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

import pytest

from fakes.api_server import ApiServer, Reply, api_server
from lorajob.cluster import Cluster
from lorajob.cluster.access import Access
from lorajob.platform.platform_config import Platform, PlatformStorage
from lorajob.platform.storage import connect_store
from lorajob_runtime.contract.errors import StorageError

PLATFORM = Platform(image="none", storage=PlatformStorage(uri="s3://models/lora"))
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with api_server() as started:
        yield started


def _secret(**values: str) -> Reply:
    data = {name: base64.b64encode(f"{value}\n".encode()).decode() for name, value in values.items()}
    return Reply(200, {"kind": "Secret", "data": data})


def test_every_store_has_the_key_and_the_server_of_its_own_secret(server: ApiServer) -> None:
    for number in range(2):
        server.answers += [
            _secret(
                AWS_ACCESS_KEY_ID=f"key-{number}",
                AWS_SECRET_ACCESS_KEY=f"secret-{number}",
                AWS_ENDPOINT_URL_S3=f"{NOBODY}{number}",
                AWS_REGION=f"region-{number}",
            )
        ]
    before = dict(os.environ)
    with Cluster(Access(server=server.address, namespace="team", source="the test")) as client:
        stores = [connect_store("s3://models/lora", name, PLATFORM, client) for name in ("a", "b")]

    assert len(server.requests) == 2, "the Secret is read for each"
    for number, store in enumerate(stores):
        with pytest.raises(StorageError, match=rf"s3://models/lora/{'ab'[number]} on 127\.0\.0\.1:9{number} "):
            store.list()
        signer = store._client._request_signer  # type: ignore[attr-defined]
        assert signer._credentials.access_key == f"key-{number}"
        assert signer._region_name == f"region-{number}"
    assert dict(os.environ) == before, "what is started from here inherits no key"
