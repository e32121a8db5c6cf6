"""What a run does about storage that refuses, goes away, or is full; and how it resumes from it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.storage.open import run_folder


@pytest.fixture
def uri(s3_server) -> str:
    return f"s3://{s3_server.make_bucket()}/team"


@pytest.fixture
def s3(s3_server) -> dict[str, str]:
    return s3_server.variables()


def work_folder(uri: str, settings: Any) -> RunFolder:
    return run_folder(uri, "n", settings())


def keys(s3_server, uri: str) -> list[str]:
    return s3_server.keys(uri.split("/")[2])


def written(s3_server, uri: str) -> dict[str, Any]:
    """When each file was written last."""
    stored = s3_server.client().list_objects_v2(Bucket=uri.split("/")[2])["Contents"]
    return {item["Key"]: item["LastModified"] for item in stored}


def test_a_run_leaves_the_same_layout_in_s3(start, uri: str, s3: dict[str, str], s3_server) -> None:
    run = start(uri, variables=s3)

    assert run.wait() == 0, run.end()

    found = {key.removeprefix("team/n/") for key in keys(s3_server, uri)}
    files = (
        "adapter_config.json",
        "adapter_model.safetensors",
        "checkpoint.json",
        "optimizer.safetensors",
        "state.json",
    )
    assert found >= {f"checkpoints/step-00000{step}/{file}" for step in (2, 4) for file in files}
    assert found >= {"spec.json", "events.jsonl", "adapter/adapter_model.safetensors", "logs/attempt-1/rank-0.log.gz"}
    assert run.end()["message"] == f"the adapter is {uri}/n/adapter"


def test_a_wrong_key_ends_with_13_and_no_secret(start, uri: str, s3: dict[str, str]) -> None:
    run = start(uri, variables=s3 | {"AWS_SECRET_ACCESS_KEY": "wrong-and-secret"})

    assert run.wait() == 13
    assert "refuses access" in run.end()["message"]
    assert "wrong-and-secret" not in str(run.events())


def test_a_missing_bucket_ends_with_10_and_its_name(start, s3: dict[str, str]) -> None:
    run = start("s3://nobody-made-this/x", variables=s3)

    assert run.wait() == 10
    assert "'nobody-made-this' does not exist" in run.end()["message"]


def test_storage_that_is_down_at_the_start_ends_with_21(start, s3: dict[str, str]) -> None:
    run = start("s3://bucket", variables=s3 | {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"})

    assert run.wait() == 21
    assert "does not answer (Connection refused)" in run.end()["message"]


def test_training_goes_on_while_storage_is_away_and_all_is_uploaded_when_it_is_back(
    start, uri: str, s3_server, s3_proxy, wait_until
) -> None:
    run = start(uri, variables=s3_server.variables(endpoint=s3_proxy.endpoint), orders={"total": 6, "hold": 5})
    wait_until(lambda: "team/n/checkpoints/step-000004/checkpoint.json" in keys(s3_server, uri), what="step 4")

    s3_proxy.cut()
    run.process.terminate()
    wait_until(lambda: any(e["event"] == "checkpoint" and e["step"] == 5 for e in run.events()), what="step 5")
    wait_until(lambda: run.remarks("warning"), what="the warning")
    s3_proxy.restore()

    assert run.wait() == 30
    assert "team/n/checkpoints/step-000005/checkpoint.json" in keys(s3_server, uri)
    away, back = run.remarks("warning")
    assert "does not answer" in away
    assert "answers again" in back


def test_storage_that_stays_away_ends_with_21_and_the_next_start_uploads_what_was_kept(
    start, uri: str, s3_server, s3_proxy, settings, wait_until
) -> None:
    cut_off = s3_server.variables(endpoint=s3_proxy.endpoint)
    run = start(uri, variables=cut_off, orders={"hold": 3}, limits={"storage_at_end": 1})
    wait_until(lambda: 3 in run.steps(), what="step 3")
    s3_proxy.cut()
    run.process.terminate()

    assert run.wait() == 21
    folder = work_folder(uri, settings)
    assert str(folder.checkpoints) in run.end()["message"]
    assert checkpoint.steps(folder) == [2, 3]

    again = start(uri, variables=s3_server.variables())

    assert again.wait() == 0, again.end()
    assert again.steps() == [1, 2, 3, 4]
    assert "team/n/checkpoints/step-000003/checkpoint.json" in keys(s3_server, uri)


IN_A_POD = {"LORAJOB_JOB": "n", "LORAJOB_NAMESPACE": "team-a", "LORAJOB_POD": "n-0-abcde", "LORAJOB_JOB_UID": "u-1"}


def troubles(run: Any) -> list[str]:
    return [event["trouble"] for event in run.events() if event["event"] == "report" and event["name"] == "storage"]


def test_a_pod_holds_out_for_a_bucket_that_is_gone_at_the_end_and_says_what_it_waits_for(
    start, uri: str, s3: dict[str, str], s3_server, wait_until
) -> None:
    # two steps of so many seconds are left when the bucket goes, on a busy machine too
    run = start(uri, variables=s3 | IN_A_POD, orders={"seconds": 3}, limits={"storage_at_end": 60})
    bucket, client = uri.split("/")[2], s3_server.client()
    wait_until(lambda: "team/n/checkpoints/step-000002/checkpoint.json" in keys(s3_server, uri), what="step 2")
    # this server takes the files with it, in one go: one after the other the run would see its lease removed first
    client.delete_bucket(Bucket=bucket)
    wait_until(lambda: any(event.get("name") == "publish" for event in run.events()), what="the end of training")
    wait_until(lambda: troubles(run), what="the trouble")
    assert f"the bucket '{bucket}' does not exist" in troubles(run)[-1]
    assert run.process.poll() is None, "a bucket that is gone ends nothing while there is time"

    client.create_bucket(Bucket=bucket)

    assert run.wait() == 0, run.end()
    assert "team/n/adapter/adapter_model.safetensors" in keys(s3_server, uri)
    assert troubles(run)[-1] == ""


def test_what_a_pod_could_not_bring_to_storage_is_said_to_be_lost_with_it_and_the_next_attempt_trains_the_rest(
    start, uri: str, s3_server, s3_proxy, tmp_path: Path, wait_until
) -> None:
    cut_off = s3_server.variables(endpoint=s3_proxy.endpoint) | IN_A_POD
    run = start(uri, variables=cut_off, orders={"seconds": 0.4}, limits={"storage_at_end": 1})
    wait_until(lambda: "team/n/checkpoints/step-000002/checkpoint.json" in keys(s3_server, uri), what="step 2")
    s3_proxy.cut()

    assert run.wait() == 21
    end = run.end()
    assert (
        "the newest checkpoint in storage is step-000002, and the work of this pod after it is lost" in end["message"]
    )
    assert "same command" not in end["message"] + end["hint"]
    assert "kept" not in end["message"] + end["hint"]

    another_disk = s3_server.variables() | IN_A_POD | {"LORAJOB_WORK": str(tmp_path / "another-pod")}
    again = start(uri, variables=another_disk)

    assert again.wait() == 0, again.end()
    assert "going on from the checkpoint of step 2" in again.remarks("notice")


def test_a_pod_whose_training_put_a_link_in_the_place_of_its_log_ends_with_12_and_does_not_wait(
    start, uri: str, s3: dict[str, str], s3_server
) -> None:
    run = start(uri, variables=s3 | IN_A_POD, orders={"link": 3}, limits={"storage_at_end": 600})

    assert run.wait() == 12
    assert "logs/attempt-1/rank-0.log is not a regular file" in run.end()["message"]
    assert "team/n/logs/attempt-1/rank-0.log.gz" not in keys(s3_server, uri)


@pytest.mark.parametrize("step", [2, 3])
def test_a_pod_whose_run_would_fail_again_does_not_wait_for_hours_with_logs_alone(
    start, uri: str, s3_server, s3_proxy, wait_until, step: int
) -> None:
    orders = {"seconds": 2, "failures": [{"rank": 0, "step": step, "class": "diverged", "message": "NaN"}]}
    cut_off = s3_server.variables(endpoint=s3_proxy.endpoint) | IN_A_POD
    limits = {"storage_at_end": 600, "storage_for_logs": 0.5}
    run = start(uri, variables=cut_off, orders=orders, limits=limits)
    stored = "checkpoints/step-000002/checkpoint.json" if step == 3 else "events.jsonl"
    wait_until(lambda: f"team/n/{stored}" in keys(s3_server, uri), what=stored)
    s3_proxy.cut()

    assert run.wait() == 15
    assert run.end()["message"].endswith("NaN")


def test_a_pod_that_was_told_to_stop_says_how_it_ended_before_its_time_is_up(
    start, uri: str, s3_server, s3_proxy, wait_until
) -> None:
    limits = {"storage_at_end": 600, "storage_when_stopped": 1}
    cut_off = s3_server.variables(endpoint=s3_proxy.endpoint) | IN_A_POD
    run = start(uri, variables=cut_off, orders={"hold": 3}, limits=limits)
    wait_until(lambda: 3 in run.steps(), what="step 3")
    s3_proxy.cut()
    run.process.terminate()

    assert run.wait() == 21
    assert run.remarks("notice") == ["stopping after this step with a checkpoint"], "nobody is at its terminal"


def test_a_pod_that_was_told_to_stop_ends_within_its_grace_period_though_storage_answers_nothing(
    start, uri: str, s3_server, s3_proxy, wait_until
) -> None:
    limits = {"storage_at_end": 600, "storage_when_stopped": 600, "grace": 12, "lease": {"release": 0.5}}
    hanging = s3_server.variables(endpoint=s3_proxy.endpoint) | IN_A_POD
    run = start(uri, variables=hanging, orders={"hold": 3}, limits=limits)
    wait_until(lambda: 3 in run.steps(), what="step 3")
    s3_proxy.freeze()
    run.process.terminate()

    # less than what boto3 waits for an answer
    assert run.wait(60) == 21
    assert f"{uri}/n has not taken all finished work within the time that this pod has to stop" in run.end()["message"]


def test_a_pod_that_was_stopped_says_how_it_goes_on_there(start, uri: str, s3: dict[str, str], wait_until) -> None:
    run = start(uri, variables=s3 | IN_A_POD, orders={"hold": 3})
    wait_until(lambda: 3 in run.steps(), what="step 3")
    run.process.terminate()

    assert run.wait() == 30
    assert "in its next pod" in run.end()["hint"]
    assert "same command" not in run.end()["hint"]


def test_a_second_run_of_the_name_in_another_namespace_is_refused_and_leaves_the_first_as_it_is(
    start, uri: str, s3: dict[str, str], s3_server, tmp_path: Path
) -> None:
    assert start(uri, variables=s3 | IN_A_POD).wait() == 0
    before = keys(s3_server, uri)

    other = IN_A_POD | {"LORAJOB_NAMESPACE": "team-b", "LORAJOB_JOB_UID": "u-2"}
    second = start(uri, variables=s3 | other | {"LORAJOB_WORK": str(tmp_path / "theirs")})

    assert second.wait() == 10
    assert "holds the run of that name in namespace team-a" in second.end()["message"]
    assert keys(s3_server, uri) == before


def test_another_machine_that_starts_the_same_run_is_refused_while_the_first_one_writes(
    start, uri: str, s3: dict[str, str], tmp_path: Path, wait_until
) -> None:
    quick = {"lease": {"renew": 0.2, "look": 0.1}}
    first = start(uri, variables=s3, orders={"hold": 3}, limits=quick)
    wait_until(lambda: 3 in first.steps(), what="step 3")

    second = start(uri, variables=s3 | {"LORAJOB_WORK": str(tmp_path / "another-machine")}, limits=quick)

    assert second.wait() == 10
    assert f"another process writes to {uri}/n: process {first.process.pid}" in second.end()["message"]
    first.process.terminate()
    assert first.wait() == 30


def test_a_process_that_was_taken_for_lost_stops_and_writes_nothing_more(
    start, uri: str, s3: dict[str, str], s3_server, tmp_path: Path, wait_until
) -> None:
    quick = {"lease": {"renew": 0.2, "look": 0.1}}
    frozen = start(uri, variables=s3 | IN_A_POD, orders={"hold": 3}, limits=quick)
    wait_until(lambda: 3 in frozen.steps(), what="step 3")
    another_disk = {"LORAJOB_WORK": str(tmp_path / "another-pod"), "LORAJOB_POD": "n-0-fghij"}

    assert start(uri, variables=s3 | IN_A_POD | another_disk, limits=quick).wait() == 0
    assert frozen.wait() == 30

    assert "pod n-0-fghij of namespace team-a has taken this run over" in frozen.end()["message"]
    assert "team/n/checkpoints/step-000003/checkpoint.json" not in keys(s3_server, uri)


@pytest.mark.parametrize("stale", [0.5, 1, 1.5, 2, 3])
def test_whenever_it_is_seen_that_another_took_over_a_process_ends_in_order(
    start, uri: str, s3: dict[str, str], s3_server, s3_proxy, tmp_path: Path, wait_until, stale: float
) -> None:
    quick = {"lease": {"renew": 60, "look": 0.1, "stale": stale}, "storage_at_end": 60}
    cut_off = s3_server.variables(endpoint=s3_proxy.endpoint) | IN_A_POD
    first = start(uri, variables=cut_off, orders={"hold": 3}, limits=quick)
    wait_until(lambda: 3 in first.steps(), what="step 3")
    s3_proxy.cut()
    first.process.terminate()
    another_disk = {"LORAJOB_WORK": str(tmp_path / "another-pod"), "LORAJOB_POD": "n-0-fghij"}
    assert start(uri, variables=s3 | IN_A_POD | another_disk).wait() == 0
    s3_proxy.restore()

    code = first.wait()

    assert code == first.end()["exit_code"] == 30


def test_who_was_cut_off_while_another_took_over_and_ended_writes_nothing_when_storage_is_back(
    start, uri: str, s3: dict[str, str], s3_server, s3_proxy, tmp_path: Path, wait_until
) -> None:
    quick = {"lease": {"renew": 60, "look": 0.1, "stale": 2}, "storage_at_end": 60}
    cut_off = s3_server.variables(endpoint=s3_proxy.endpoint) | IN_A_POD
    first = start(uri, variables=cut_off, orders={"hold": 3}, limits=quick)
    wait_until(lambda: 3 in first.steps(), what="step 3")
    s3_proxy.cut()
    cut_at = time.monotonic()
    first.process.terminate()
    another_disk = {"LORAJOB_WORK": str(tmp_path / "another-pod"), "LORAJOB_POD": "n-0-fghij"}
    assert start(uri, variables=s3 | IN_A_POD | another_disk).wait() == 0
    before = written(s3_server, uri)
    wait_until(lambda: troubles(first), what="the trouble")
    wait_until(lambda: time.monotonic() > cut_at + quick["lease"]["stale"], what="the end of the first one's lease")

    s3_proxy.restore()

    assert first.wait() == 30, first.end()
    assert "a process that has ended meanwhile has taken this run over" in first.end()["message"]
    assert written(s3_server, uri) == before


def test_who_was_cut_off_only_for_a_moment_writes_nothing_over_what_another_wrote_in_it(
    start, uri: str, s3: dict[str, str], s3_server, s3_proxy, tmp_path: Path, wait_until
) -> None:
    fresh = {"lease": {"renew": 3600, "look": 0.1, "stale": 3600}, "storage_at_end": 60}
    cut_off = s3_server.variables(endpoint=s3_proxy.endpoint) | IN_A_POD
    first = start(uri, variables=cut_off, orders={"hold": 3}, limits=fresh)
    wait_until(lambda: 3 in first.steps(), what="step 3")
    s3_proxy.cut()
    first.process.terminate()
    another_disk = {"LORAJOB_WORK": str(tmp_path / "another-pod"), "LORAJOB_POD": "n-0-fghij"}
    assert start(uri, variables=s3 | IN_A_POD | another_disk).wait() == 0
    before = written(s3_server, uri)
    wait_until(lambda: troubles(first), what="the trouble")

    s3_proxy.restore()

    assert first.wait() == 30, first.end()
    assert "a process that has ended meanwhile has taken this run over" in first.end()["message"]
    assert written(s3_server, uri) == before


def test_a_run_goes_on_from_storage_when_its_folder_is_gone(
    start, uri: str, s3: dict[str, str], tmp_path: Path, wait_until
) -> None:
    first = start(uri, variables=s3, orders={"hold": 3})
    wait_until(lambda: 3 in first.steps(), what="step 3")
    first.process.terminate()
    assert first.wait() == 30

    elsewhere = start(uri, variables=s3 | {"LORAJOB_WORK": str(tmp_path / "another-machine")})

    assert elsewhere.wait() == 0, elsewhere.end()
    assert "going on from the checkpoint of step 3" in elsewhere.remarks("notice")
    assert elsewhere.steps() == [1, 2, 3, 4]


def test_only_as_many_checkpoints_as_asked_for_stay_resumable_and_every_adapter_stays(
    start, uri: str, s3: dict[str, str], s3_server, settings
) -> None:
    run = start(uri, variables=s3, spec={"train": {"keepCheckpoints": 2}}, orders={"total": 8, "seconds": 0.1})

    assert run.wait() == 0, run.end()

    found = keys(s3_server, uri)
    assert [key for key in found if key.endswith("optimizer.safetensors")] == [
        f"team/n/checkpoints/step-00000{step}/optimizer.safetensors" for step in (6, 8)
    ]
    assert len([key for key in found if key.endswith("checkpoint.json")]) == 4
    folder = work_folder(uri, settings)
    assert [step for step in checkpoint.steps(folder) if checkpoint.resumable(folder.checkpoint(step))] == [6, 8]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 200 KiB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", path]
    if os.geteuid() != 0 or subprocess.run(mount).returncode != 0:
        pytest.skip("a full disk needs a file system of its own: this user may not mount one")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_disk_that_is_full_from_the_start_ends_with_21_and_one_line(start, small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(bytes(1 << 20))

    run = start(str(small_disk / "runs"))

    assert run.wait() == 21
    assert str(small_disk) in run.end()["message"]
    assert run.stderr() == ""


def test_a_disk_that_fills_up_while_training_ends_with_21_and_keeps_what_was_finished(start, small_disk: Path) -> None:
    run = start(str(small_disk / "runs"), orders={"total": 400, "save": 1})

    assert run.wait() == 21
    assert "No space left on device" in run.end()["message"]
    assert run.stderr() == ""
    folder = RunFolder(small_disk / "runs/.work/n")
    kept = checkpoint.steps(folder)
    assert kept
    assert all(checkpoint.verify(folder.checkpoint(step)) for step in kept)
