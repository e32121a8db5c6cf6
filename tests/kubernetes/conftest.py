"""Every test in this folder needs a cluster and carries the marker `cluster`."""

from __future__ import annotations

from pathlib import Path

import pytest
from restricted import restricted_kubeconfig

__all__ = ["restricted_kubeconfig"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
