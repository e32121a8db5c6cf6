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
from lorajob_runtime.contract.kubernetes import LastWords
from lorajob_runtime.run import coordinator
from lorajob_runtime.run.coordinator import Follower, Leader
from lorajob_runtime.run.worker_node import is_counted
from waiting import wait_until

DONE = LastWords(exit_code=0, failure="succeeded", message="done")
SECRET = "5f0c2f9e-6d3c-4a55-9d3e-3f1a7f6f2a10"


@pytest.fixture
def leader() -> Iterator[Leader]:
    leader = Leader("zhenhuan", nodes=3, secret=SECRET, host="127.0.0.1", port=0)
    yield leader
    leader.end(DONE)


@pytest.fixture
def join(leader: Leader) -> Iterator[Callable[[int], Follower]]:
    joined: list[Follower] = []

    def call(node: int) -> Follower:
        port = leader.port
        follower = coordinator.join(
            "zhenhuan", node=node, host="127.0.0.1", port=port, secret=SECRET, patience_seconds=60
        )
        joined.append(follower)
        return follower

    yield call
    for follower in joined:
        follower.close()


def test_training_begins_when_every_node_is_ready(leader: Leader, join: Callable[[int], Follower]) -> None:
    followers = [join(1), join(2)]
    gathered = threading.Thread(target=lambda: leader.gather(patience_seconds=60), daemon=True)
    gathered.start()
    followers[0].ready()
    assert gathered.is_alive()
    followers[1].ready()
    gathered.join(60)
    assert not gathered.is_alive()

    leader.begin(4)

    for follower in followers:
        assert wait_until(follower.take_start, what="the start") == 4
        assert follower.take_start() is None
    assert leader.lost() is None


def test_a_node_that_goes_away_is_lost_and_another_may_take_its_place(
    leader: Leader, join: Callable[[int], Follower]
) -> None:
    first, other = join(1), join(2)
    first.ready()
    other.ready()
    leader.gather(patience_seconds=60)

    first.close()

    lost = wait_until(leader.lost, what="the loss")
    assert isinstance(lost, PeerError)
    assert "node 1" in lost.message
    join(1).ready()
    leader.gather(patience_seconds=60)
    assert leader.lost() is None


def test_a_nodes_own_fault_ends_the_run_when_it_is_final_and_else_waits_for_the_node(
    leader: Leader, join: Callable[[int], Follower]
) -> None:
    first, other = join(1), join(2)
    first.ended(0, LastWords(exit_code=11, failure="data", message="no rows", hint="look"))
    error = wait_until(leader.lost, what="the cause")
    assert isinstance(error, DataError)
    assert error.message == "node 1: no rows"

    first.ended(0, LastWords(exit_code=1, failure="unexpected", message="a fault"))
    other.ready()

    assert isinstance(wait_until(lambda: isinstance(leader.lost(), PeerError) and leader.lost()), PeerError)


def test_a_new_attempt_waits_for_the_end_of_the_old_one_on_every_node(
    leader: Leader, join: Callable[[int], Follower]
) -> None:
    survivor, lost = join(1), join(2)
    for follower in (survivor, lost):
        follower.ready()
    leader.gather(patience_seconds=60)
    leader.begin(1)
    assert wait_until(survivor.take_start, what="the start") == 1
    lost.close()
    wait_until(leader.lost, what="the loss")
    leader.give_up()
    wait_until(lambda: survivor.is_given_up(1), what="the word to stop")
    join(2).ready()
    gathered = threading.Thread(target=lambda: leader.gather(patience_seconds=60), daemon=True)
    gathered.start()
    gathered.join(0.5)
    assert gathered.is_alive(), "node 1 still trains"

    survivor.ended(1, LastWords(exit_code=23, failure="peer", message="connection reset"))
    survivor.ready()

    gathered.join(60)
    assert not gathered.is_alive()
    leader.begin(2)
    survivor.ended(1, LastWords(exit_code=23, failure="peer", message="connection reset"))
    assert leader.loss(within_seconds=0.5) is None, "what is said of an old attempt ends no new one"
    assert not survivor.is_given_up(2)


def test_of_an_attempt_that_failed_on_every_node_only_the_first_ones_pod_counts(
    leader: Leader, join: Callable[[int], Follower]
) -> None:
    """The others are told, and stay: of one attempt one retry is spent."""
    follower, other = join(1), join(2)
    for each in (follower, other):
        each.ready()
    leader.gather(patience_seconds=60)
    leader.begin(3)
    leader.give_up()

    echo = is_counted(follower, 3, patience_seconds=0.5)
    leader.take_blame()
    of_its_own = is_counted(follower, 3, patience_seconds=60)
    later = is_counted(follower, 4, patience_seconds=0.5)
    leader.end(LastWords(exit_code=20, failure="hub", message="it is down"))
    ended = is_counted(follower, 4, patience_seconds=60)

    assert (echo, of_its_own, later, ended) == (False, True, False, True)


def test_every_node_hears_how_the_run_ended(leader: Leader, join: Callable[[int], Follower]) -> None:
    followers = [join(1), join(2)]
    followers[0].ready()
    followers[1].ready()
    leader.gather(patience_seconds=60)

    leader.end(DONE)

    for follower in followers:
        assert wait_until(lambda follower=follower: follower.end, what="the end") == DONE
        assert not follower.is_lost


def test_a_leader_that_vanishes_is_noticed(join: Callable[[int], Follower], leader: Leader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        follower = coordinator.join("zhenhuan", node=1, host="127.0.0.1", port=port, patience_seconds=60)
        client, _ = server.accept()
        client.close()

        wait_until(lambda: follower.is_lost, what="the loss")
        follower.close()


def test_a_stranger_on_the_port_is_sent_away(leader: Leader) -> None:
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
        with closing(socket.create_connection(("127.0.0.1", leader.port), timeout=60)) as stranger:
            stranger.sendall(hello)
            assert stranger.recv(100) == b""
    with pytest.raises(PeerError, match=r"node 1, 2 of 3"):
        leader.gather(patience_seconds=0.1)


def test_a_leader_that_does_not_come_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(PeerError, match="did not answer"):
        coordinator.join("zhenhuan", node=1, host="127.0.0.1", port=port, patience_seconds=0)


def test_whom_it_waits_for_is_said_whenever_that_changes(leader: Leader, join: Callable[[int], Follower]) -> None:
    said: list[str] = []
    gathered = threading.Thread(
        target=lambda: leader.gather(patience_seconds=20, say=said.append), name="gather", daemon=True
    )
    gathered.start()
    wait_until(lambda: said == ["waits for nodes 1, 2 of 3 to come"], what="the first word")
    first, other = join(1), join(2)
    wait_until(lambda: said[-1] == "waits for nodes 1, 2 of 3 to get ready", what="both to come")
    other.ready()
    wait_until(lambda: said[-1] == "waits for node 1 of 3 to get ready", what="node 2")
    first.ready()
    gathered.join(60)

    assert not gathered.is_alive()


def test_a_connection_that_cannot_be_taken_does_not_keep_later_ones_away(
    leader: Leader, join: Callable[[int], Follower]
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
        client.connect(("127.0.0.1", leader.port))
        time.sleep(0.5)

    join(1).ready()

    wait_until(lambda: leader._is_here(1), what="node 1")
