"""The connection between the supervisors of a run's nodes, over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from lorajob_runtime.contract.errors import DataError, PeerError
from lorajob_runtime.contract.kubernetes import TerminationMessage
from lorajob_runtime.run import coordinator_client
from lorajob_runtime.run.coordinator import Coordinator
from lorajob_runtime.run.coordinator_client import CoordinatorClient
from lorajob_runtime.run.worker_node import is_counted
from waiting import wait_until

DONE = TerminationMessage(exit_code=0, failure="succeeded", message="done")
SECRET = "5f0c2f9e-6d3c-4a55-9d3e-3f1a7f6f2a10"


@pytest.fixture
def node0() -> Iterator[Coordinator]:
    node0 = Coordinator("zhenhuan", nodes=3, secret=SECRET, host="127.0.0.1", port=0)
    yield node0
    node0.end(DONE)


@pytest.fixture
def join(node0: Coordinator) -> Iterator[Callable[[int], CoordinatorClient]]:
    joined: list[CoordinatorClient] = []

    def call(node: int) -> CoordinatorClient:
        port = node0.port
        client = coordinator_client.join(
            "zhenhuan", node=node, host="127.0.0.1", port=port, secret=SECRET, patience_seconds=60
        )
        joined.append(client)
        return client

    yield call
    for client in joined:
        client.close()


def test_training_begins_when_every_node_is_ready(node0: Coordinator, join: Callable[[int], CoordinatorClient]) -> None:
    clients = [join(1), join(2)]
    gathered = threading.Thread(target=lambda: node0.gather(patience_seconds=60), daemon=True)
    gathered.start()
    clients[0].ready()
    assert gathered.is_alive()
    clients[1].ready()
    gathered.join(60)
    assert not gathered.is_alive()

    node0.begin(4)

    for client in clients:
        assert wait_until(client.take_start, what="the start") == 4
        assert client.take_start() is None
    assert node0.lost() is None


def test_a_node_that_goes_away_is_lost_and_another_may_take_its_place(
    node0: Coordinator, join: Callable[[int], CoordinatorClient]
) -> None:
    first, other = join(1), join(2)
    first.ready()
    other.ready()
    node0.gather(patience_seconds=60)

    first.close()

    lost = wait_until(node0.lost, what="the loss")
    assert isinstance(lost, PeerError)
    assert "node 1" in lost.message
    join(1).ready()
    node0.gather(patience_seconds=60)
    assert node0.lost() is None


def test_a_nodes_own_fault_ends_the_run_when_it_is_final_and_else_waits_for_the_node(
    node0: Coordinator, join: Callable[[int], CoordinatorClient]
) -> None:
    first, other = join(1), join(2)
    first.ended(0, TerminationMessage(exit_code=11, failure="data", message="no rows", hint="look"))
    error = wait_until(node0.lost, what="the cause")
    assert isinstance(error, DataError)
    assert error.message == "node 1: no rows"

    first.ended(0, TerminationMessage(exit_code=1, failure="unexpected", message="a fault"))
    other.ready()

    assert isinstance(wait_until(lambda: isinstance(node0.lost(), PeerError) and node0.lost()), PeerError)


def test_a_new_attempt_waits_for_the_end_of_the_old_one_on_every_node(
    node0: Coordinator, join: Callable[[int], CoordinatorClient]
) -> None:
    survivor, lost = join(1), join(2)
    for client in (survivor, lost):
        client.ready()
    node0.gather(patience_seconds=60)
    node0.begin(1)
    assert wait_until(survivor.take_start, what="the start") == 1
    lost.close()
    wait_until(node0.lost, what="the loss")
    node0.give_up()
    wait_until(lambda: survivor.is_given_up(1), what="the word to stop")
    join(2).ready()
    said: list[str] = []
    gathered = threading.Thread(target=lambda: node0.gather(patience_seconds=60, say=said.append), daemon=True)
    gathered.start()
    wait_until(
        lambda: said[-1:] == ["waits for node 1 of 3 to be ready"], what="the wait for node 1, which still trains"
    )
    assert gathered.is_alive()

    survivor.ended(1, TerminationMessage(exit_code=23, failure="peer", message="connection reset"))
    survivor.ready()

    gathered.join(60)
    assert not gathered.is_alive()
    node0.begin(2)
    survivor.ended(1, TerminationMessage(exit_code=23, failure="peer", message="connection reset"))
    assert node0.loss(within_seconds=0.5) is None, "what is said of an old attempt ends no new one"
    assert not survivor.is_given_up(2)


def test_of_an_attempt_that_failed_on_every_node_only_the_first_ones_pod_counts(
    node0: Coordinator, join: Callable[[int], CoordinatorClient]
) -> None:
    """The others are told, and stay: of one attempt one retry is spent."""
    client, other = join(1), join(2)
    for each in (client, other):
        each.ready()
    node0.gather(patience_seconds=60)
    node0.begin(3)
    node0.give_up()

    echo = is_counted(client, 3, patience_seconds=0.5)
    node0.take_blame()
    of_its_own = is_counted(client, 3, patience_seconds=60)
    later = is_counted(client, 4, patience_seconds=0.5)
    node0.end(TerminationMessage(exit_code=20, failure="hub", message="it is down"))
    ended = is_counted(client, 4, patience_seconds=60)

    assert (echo, of_its_own, later, ended) == (False, True, False, True)


def test_every_node_hears_how_the_run_ended(node0: Coordinator, join: Callable[[int], CoordinatorClient]) -> None:
    clients = [join(1), join(2)]
    clients[0].ready()
    clients[1].ready()
    node0.gather(patience_seconds=60)

    node0.end(DONE)

    for client in clients:
        assert wait_until(lambda client=client: client.end, what="the end") == DONE
        assert not client.is_lost


def test_a_coordinator_that_vanishes_is_noticed(join: Callable[[int], CoordinatorClient], node0: Coordinator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = coordinator_client.join("zhenhuan", node=1, host="127.0.0.1", port=port, patience_seconds=60)
        server_side, _ = server.accept()
        server_side.close()

        wait_until(lambda: client.is_lost, what="the loss")
        client.close()


def test_a_stranger_on_the_port_is_sent_away(node0: Coordinator) -> None:
    strangers = [
        {"run": "other", "node": 1, "secret": SECRET},
        {"run": "zhenhuan", "node": 3, "secret": SECRET},
        {"run": "zhenhuan", "node": 1},
        {"run": "zhenhuan", "node": 1, "secret": "0"},
        {"run": "zhenhuan", "node": 1, "secret": None},
        {"run": "zhenhuan", "node": 1, "secret": [SECRET]},
        {"run": "zhenhuan", "node": 1, "secret": "\ud800"},
    ]
    for hello in (b"GET / HTTP/1.1\r\n", *(json.dumps(each).encode() + b"\n" for each in strangers)):
        with closing(socket.create_connection(("127.0.0.1", node0.port), timeout=60)) as stranger:
            stranger.sendall(hello)
            assert stranger.recv(100) == b""
    with pytest.raises(PeerError, match=r"node 1, 2 of 3"):
        node0.gather(patience_seconds=0.1)


def test_a_leader_that_does_not_come_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PeerError, match="did not answer"):
        coordinator_client.join("zhenhuan", node=1, host="127.0.0.1", port=port, patience_seconds=0)


def test_whom_it_waits_for_is_said_whenever_that_changes(
    node0: Coordinator, join: Callable[[int], CoordinatorClient]
) -> None:
    said: list[str] = []
    gathered = threading.Thread(
        target=lambda: node0.gather(patience_seconds=20, say=said.append), name="gather", daemon=True
    )
    gathered.start()
    wait_until(lambda: said == ["waits for nodes 1, 2 of 3 to connect"], what="the first word")
    first, other = join(1), join(2)
    wait_until(lambda: said[-1] == "waits for nodes 1, 2 of 3 to be ready", what="both to come")
    other.ready()
    wait_until(lambda: said[-1] == "waits for node 1 of 3 to be ready", what="node 2")
    first.ready()
    gathered.join(60)

    assert not gathered.is_alive()


def test_a_connection_that_cannot_be_taken_does_not_keep_later_ones_away(
    node0: Coordinator, join: Callable[[int], CoordinatorClient]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pair = socket.socketpair()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(each) for each in pair]
        client = stack.enter_context(socket.socket())
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(each.fileno() for each in [*held, client]) + 1, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        fill = []
        with contextlib.suppress(OSError):
            while True:
                fill.append(stack.enter_context(open(os.devnull)))
        client.connect(("127.0.0.1", node0.port))
        time.sleep(0.5)

    join(1).ready()

    wait_until(lambda: node0._is_here(1), what="node 1")
