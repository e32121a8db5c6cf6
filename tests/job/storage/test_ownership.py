"""Who writes to a run's prefix in S3, and whose it is, against a real server."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.awsrequest import AWSResponse

from lorajob_runtime.contract.errors import ConfigError, TakenOverError
from lorajob_runtime.contract.layout import OWNER
from lorajob_runtime.storage import ownership, s3
from lorajob_runtime.storage.open import open_store
from lorajob_runtime.storage.ownership import Lease, LeaseIntervals
from lorajob_runtime.storage.s3 import S3Store
from lorajob_runtime.storage.writer import Writer, process_identity, writer_here
from lorajob_runtime.system.environment import Environment

QUICK = LeaseIntervals(renew=0.3, stale=60, hand_over=6, look=0.1)
IMPATIENT = dataclasses.replace(QUICK, stale=2.5)
FROZEN = LeaseIntervals(renew=3600, stale=2.5, hand_over=6, look=0.1)
"""Of a process that never renews, as one that was killed or frozen."""

Hold = Callable[..., Lease]


def without_conditions(params: dict[str, Any], **_: Any) -> None:
    """A server that takes no notice of If-None-Match."""
    params["headers"].pop("If-None-Match", None)


def refusing_conditions(request: Any, **_: Any) -> AWSResponse | None:
    """A server that says it has no such thing."""
    if "If-None-Match" not in request.headers:
        return None
    body = b"<Error><Code>NotImplemented</Code></Error>"

    class Raw:
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield body

    return AWSResponse(request.url, 501, {"content-length": str(len(body))}, Raw())


@pytest.fixture(params=["conditions", "ignores them", "refuses them"])
def connect(
    request: pytest.FixtureRequest, s3_keys, settings: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], S3Store]:
    monkeypatch.setattr(s3, "_SETTLING_SECONDS", 1.0)
    bucket = s3_keys.make_bucket()

    def call() -> S3Store:
        store = cast(S3Store, open_store(f"s3://{bucket}/team", "n", settings(s3_endpoint=s3_keys.endpoint)))
        events = store._client.meta.events
        if request.param == "ignores them":
            events.register("before-call.s3.PutObject", without_conditions)
        if request.param == "refuses them":
            events.register("before-send.s3.PutObject", refusing_conditions)
        return store

    return call


@pytest.fixture
def hold() -> Iterator[Hold]:
    with ExitStack() as stack:

        def call(store: S3Store, writer: Writer, **options: Any) -> Lease:
            return stack.enter_context(ownership.hold(store, writer, **({"pace": QUICK} | options)))

        yield call


def pod(job: str, namespace: str = "team-a", start: str = "0") -> Writer:
    return Writer(
        id=f"{job}-{start}", place=f"job {job}", namespace=namespace, name=f"pod {job} of namespace {namespace}"
    )


def machine(name: str, start: str = "0") -> Writer:
    return Writer(id=f"{name}-{start}", place=name, namespace="", name=f"process 1 on {name}")


def test_one_of_many_that_begin_at_once_gets_a_new_file(connect: Callable[[], S3Store]) -> None:
    got: list[int] = []

    def create(number: int) -> None:
        if connect().create("lease/000001.json", f"{number}".encode()):
            got.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 1
    assert connect().get_bytes("lease/000001.json") == f"{got[0]}".encode()
    assert not connect().create("lease/000001.json", b"another")


def test_another_machine_is_refused_in_a_line_that_names_who_writes(connect: Callable[[], S3Store], hold: Hold) -> None:
    hold(connect(), machine("here"))
    said: list[str] = []

    with pytest.raises(ConfigError, match=r"another process writes to s3://.*/team/n: process 1 on here"):
        hold(connect(), machine("there"), say=said.append)

    assert len(said) == 1
    assert "process 1 on here wrote this run" in said[0]


def test_a_run_that_has_ended_leaves_its_place_to_the_next_one(connect: Callable[[], S3Store]) -> None:
    for name in ("here", "there", "here"):
        with ownership.hold(connect(), machine(name), pace=QUICK):
            assert len(connect().list("lease")) == 1

    assert connect().list("lease") == []


def test_a_writer_that_was_lost_is_followed_when_its_lease_is_stale(connect: Callable[[], S3Store], hold: Hold) -> None:
    hold(connect(), machine("lost"), pace=FROZEN)

    assert hold(connect(), machine("there"), pace=IMPATIENT).taken_by == ""


def test_the_next_pod_of_a_job_and_the_next_process_of_a_folder_begin_at_once(
    connect: Callable[[], S3Store], hold: Hold
) -> None:
    hold(connect(), pod("a"), pace=FROZEN)

    hold(connect(), pod("a", start="1"), pace=LeaseIntervals(look=3600))


def test_a_process_of_this_machine_that_has_ended_is_followed_at_once(
    connect: Callable[[], S3Store], hold: Hold, tmp_path: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = writer_here(None, tmp_path)
    killed = dataclasses.replace(here, place="another folder", process=process_identity(ended.pid))
    hold(connect(), killed, pace=FROZEN)

    hold(connect(), here, pace=LeaseIntervals(look=3600))


def test_a_folder_is_told_apart_by_a_mark_of_ours_alone(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-key")
    work = tmp_path / "work"
    work.mkdir()
    (work / "place").symlink_to(token)

    place = writer_here(None, work).place

    assert "a-key" not in place
    assert writer_here(None, work).place == place
    assert token.read_text() == "a-key"


def test_a_writer_that_was_taken_for_lost_learns_that_another_has_taken_over(
    connect: Callable[[], S3Store], hold: Hold, wait_until
) -> None:
    frozen = hold(connect(), pod("a"))

    hold(connect(), pod("a", start="1"))

    wait_until(lambda: frozen.taken_by, what="the loss")
    assert frozen.taken_by == "pod a of namespace team-a"


def test_a_lease_that_somebody_removed_is_written_anew_while_its_writer_lives(
    connect: Callable[[], S3Store], hold: Hold, wait_until
) -> None:
    lease = hold(connect(), pod("a"))
    (entry,) = connect().list("lease")
    connect().delete([entry.key])

    wait_until(lambda: connect().list("lease") == [entry], what="the lease")
    lease.confirm()


def test_a_lease_that_is_gone_after_a_long_silence_was_another_s_meanwhile(
    connect: Callable[[], S3Store], hold: Hold, wait_until
) -> None:
    frozen = hold(connect(), pod("a"), pace=dataclasses.replace(FROZEN, stale=0.5))
    with ownership.hold(connect(), pod("a", start="1"), pace=QUICK):
        pass
    wait_until(frozen._is_old, what="the end of its lease")

    with pytest.raises(TakenOverError, match="a process that has ended meanwhile"):
        frozen.confirm()
    assert connect().list("lease") == []


def test_a_new_job_of_the_same_namespace_waits_for_the_pods_of_the_one_before_it(
    connect: Callable[[], S3Store], hold: Hold
) -> None:
    first = hold(connect(), pod("a"))
    threading.Timer(1.5, first.release).start()

    assert hold(connect(), pod("b")).taken_by == ""


def test_a_run_of_another_namespace_is_refused_while_the_first_is_under_way_and_after_it(
    connect: Callable[[], S3Store],
) -> None:
    with (
        ownership.hold(connect(), pod("a"), pace=QUICK),
        pytest.raises(ConfigError, match="in namespace team-a: this one is in team-b"),
        ownership.hold(connect(), pod("b", "team-b"), pace=QUICK),
    ):
        pass

    with (
        pytest.raises(ConfigError, match="in namespace team-a: this one is in team-b"),
        ownership.hold(connect(), pod("c", "team-b"), pace=QUICK),
    ):
        pass
    with ownership.hold(connect(), pod("d"), pace=QUICK):
        assert connect().get_bytes(OWNER) == b'{"namespace": "team-a"}\n'


def test_a_run_that_became_another_namespaces_while_it_was_waited_for_is_refused_and_left_free(
    connect: Callable[[], S3Store], hold: Hold
) -> None:
    first, second = connect(), connect()
    patient = dataclasses.replace(QUICK, stale=6)
    hold(first, pod("a"), pace=FROZEN)
    owner = first.get_bytes(OWNER) or b""
    first.delete([OWNER])

    with pytest.raises(ConfigError, match="in namespace team-a: this one is in team-b"):
        # said when it begins to wait
        hold(second, pod("b", "team-b"), pace=patient, say=lambda _: first.put_bytes(OWNER, owner))

    assert connect().list("lease") == []


def test_what_is_another_namespaces_is_known_before_it_is_removed(connect: Callable[[], S3Store]) -> None:
    ownership.check_owner(connect(), "team-b")
    with ownership.hold(connect(), pod("a"), pace=QUICK):
        pass

    ownership.check_owner(connect(), "team-a")
    with pytest.raises(ConfigError, match="team-a"):
        ownership.check_owner(connect(), "team-b")
