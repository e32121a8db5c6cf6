"""When the progress annotation is patched, and with what."""

from __future__ import annotations

import pytest

from lorajob_runtime.contract import kubernetes
from lorajob_runtime.contract.events import Event
from lorajob_runtime.contract.kubernetes import Progress
from lorajob_runtime.report.job_progress import LONGEST_PAUSE_SECONDS, ProgressAnnotation, RefusedError


class Job:
    """A Job's annotation and a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.patches: list[Progress] = []
        self.error: OSError | None = None
        self.tries = 0
        self.heals_after: int | None = None
        self.touched: float | None = None
        self.warnings: list[str] = []

    def patch(self, text: str) -> None:
        self.tries += 1
        if self.error is not None and not (self.heals_after and self.tries > self.heals_after):
            raise self.error
        progress = kubernetes.read_progress(text)
        assert progress is not None
        self.patches.append(progress)

    def event(self, kind: str, **values: object) -> Event:
        return {"event": kind, "time": self.now, **values}

    def step(self, number: int) -> Event:
        return self.event("step", step=number, total_steps=10, epoch=number / 10, loss=2.0, tokens_per_second=50.0)


@pytest.fixture
def job() -> Job:
    return Job()


@pytest.fixture
def sink(job: Job) -> ProgressAnnotation:
    return ProgressAnnotation(
        "run-0-abcde",
        job.patch,
        logging_steps=1,
        warn=job.warnings.append,
        signs_of_life=lambda: job.touched,
        clock=lambda: job.now,
        wait=lambda seconds: None,
    )


def test_a_new_phase_is_told_at_once_and_steps_every_fifteen_seconds(job: Job, sink: ProgressAnnotation) -> None:
    sink.handle(job.event("report", name="attempt", number=2, where="run-0-abcde"))
    sink.handle(job.event("phase", name="train"))
    for number in (1, 2, 3):
        job.now += 4
        sink.handle(job.step(number))
    assert [(each.phase, each.step) for each in job.patches[-1:]] == [("train", 0)]

    job.now += 4
    sink.idle()

    latest = job.patches[-1]
    assert (latest.step, latest.total_steps, latest.loss, latest.attempt) == (3, 10, 2.0, 2)
    assert latest.seconds_left == pytest.approx(28)
    assert latest.pod == "run-0-abcde"


def test_the_end_is_told_at_once_with_class_and_hint_and_the_last_loss(job: Job, sink: ProgressAnnotation) -> None:
    sink.handle(job.event("phase", name="train"))
    sink.handle(job.step(4))
    sink.handle(job.event("report", name="stored", step=4))
    sink.handle(job.event("end", exit_code=15, **{"class": "diverged"}, message="loss is nan", hint="lower it"))

    latest = job.patches[-1]
    assert (latest.phase, latest.exit_code, latest.failure) == ("end", 15, "diverged")
    assert (latest.message, latest.hint, latest.loss, latest.checkpoint) == ("loss is nan", "lower it", 2.0, 4)


def test_what_an_earlier_start_logged_counts_but_is_not_told_again(job: Job, sink: ProgressAnnotation) -> None:
    job.now -= 100
    old = [job.event("phase", name="train"), job.step(5)]
    old.append(job.event("end", exit_code=22, **{"class": "stalled"}, message="", hint=""))
    job.now += 100
    for event in old:
        sink.handle(event)
    assert job.patches == []

    sink.handle(job.event("phase", name="fetch"))

    assert [(each.phase, each.step, each.failure) for each in job.patches] == [("fetch", 5, None)]


def test_a_download_says_how_far_it_is(job: Job, sink: ProgressAnnotation) -> None:
    sink.handle(job.event("phase", name="fetch"))
    sink.handle(job.event("report", name="notice", message="downloading 3 of 16 GB"))
    job.now += 20
    sink.idle()

    assert job.patches[-1].note == "downloading 3 of 16 GB"


def test_an_api_server_that_is_away_is_tried_again(job: Job, sink: ProgressAnnotation) -> None:
    job.error = OSError("connection refused")
    sink.handle(job.event("phase", name="data"))
    job.error, job.now = None, job.now + 15
    sink.idle()

    assert [each.phase for each in job.patches] == ["data"]


def test_a_refusal_is_got_over_however_long_it_lasts_and_said_once(job: Job, sink: ProgressAnnotation) -> None:
    job.error = RefusedError("may not")
    sink.handle(job.event("phase", name="train"))
    tries = 0
    for _ in range(7200):
        job.now += 1
        before = job.tries
        sink.handle(job.step(1))
        tries += job.tries - before
    assert 20 < tries < 60, "pauses grow, and end at some minutes"
    assert job.warnings == ["cannot write the progress annotation, and tries again: may not"]

    job.error, job.now = None, job.now + LONGEST_PAUSE_SECONDS
    sink.handle(job.step(2))

    assert [each.step for each in job.patches] == [2]
    assert job.warnings[1:] == ["the progress annotation is written again"]


def test_the_end_is_tried_until_it_is_told(job: Job, sink: ProgressAnnotation) -> None:
    job.error = RefusedError("may not")
    sink.handle(job.event("phase", name="train"))
    sink.handle(job.event("end", exit_code=0, **{"class": "succeeded"}))
    job.heals_after = job.tries + 3

    sink.close(20)

    assert [(each.phase, each.exit_code) for each in job.patches] == [("end", 0)]


def test_a_pod_that_lives_says_so_while_nothing_happens_and_when_training_last_did(
    job: Job, sink: ProgressAnnotation
) -> None:
    sink.handle(job.event("phase", name="train"))
    sink.handle(job.step(1))
    stepped = job.now
    for _ in range(600):
        job.now += 1
        sink.idle()
    assert [each.time - stepped for each in job.patches] == pytest.approx([0, 15, *range(75, 600, 60)], abs=1)
    assert {each.alive for each in job.patches} == {stepped}

    job.touched = job.now
    job.now += 70
    sink.idle()

    assert job.patches[-1].alive == job.touched


def test_the_first_word_of_a_new_attempt_is_its_own_phase(job: Job, sink: ProgressAnnotation) -> None:
    old = job.event("phase", name="train") | {"time": job.now - 100}
    for event in (old, job.step(5) | {"time": job.now - 90}, job.event("report", name="attempt", number=2, where="x")):
        sink.handle(event)
    job.now += 120
    sink.idle()
    assert job.patches == []

    sink.handle(job.event("phase", name="fetch"))

    assert [(each.phase, each.attempt) for each in job.patches] == [("fetch", 2)]


def test_what_takes_its_time_in_training_is_said_until_the_next_step(job: Job, sink: ProgressAnnotation) -> None:
    sink.handle(job.event("phase", name="train"))
    notes = []
    for event in (
        job.event("report", name="doing", message="loads the model"),
        job.event("report", name="notice", message="stopping after this step"),
        job.event("report", name="doing", message="evaluates before training"),
        job.step(1),
        job.event("report", name="storage", trouble="storage does not answer"),
        job.event("report", name="doing", message="evaluates after step 1"),
        job.event("report", name="storage", trouble=""),
    ):
        job.now += 20
        sink.handle(event)
        notes.append(job.patches[-1].note)

    loading, evaluating = "loads the model", "evaluates after step 1"
    away = "storage does not answer"
    assert notes == [loading, loading, "evaluates before training", "", away, away, evaluating]
