"""The logs of a node that is not the first, when the node ends."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.run.limits import Limits
from lorajob_runtime.run.node_logs import NodeLogs
from lorajob_runtime.run.signals import StopSignals
from lorajob_runtime.storage.open import open_store
from lorajob_runtime.system import environment


def test_a_node_that_was_told_to_stop_ends_though_storage_answers_nothing(
    s3_server: Any, s3_proxy: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    for name, value in s3_server.variables(endpoint=s3_proxy.endpoint).items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{s3_server.make_bucket()}", "n", environment.read())
    folder = RunFolder(tmp_path / "n")
    folder.log(1, 1).parent.mkdir(parents=True)
    folder.log(1, 1).write_text("a line\n")
    signals = StopSignals()
    s3_proxy.freeze()

    def end() -> None:
        with NodeLogs(store, folder, Limits(grace=4), signals):
            signals.receive(signal.SIGTERM)

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    # less than what boto3 waits for an answer
    ending.join(60)

    assert not ending.is_alive()
    assert "storage does not answer in time" in capsys.readouterr().err
