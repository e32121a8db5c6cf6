"""SwanLab's cloud, or a host of one's own: what it gets, and that a restart goes on with the same experiment."""

from __future__ import annotations

import time

from lorajob_runtime.contract import events
from lorajob_runtime.report.swanlab.chart_points import Points
from lorajob_runtime.report.swanlab.sink import SwanLab


def feed(sink: SwanLab, log: list[events.Event]) -> None:
    for event in log:
        sink.handle(event)


def feed_until(sink: SwanLab, condition: object, *, seconds: float = 30) -> None:
    """Lets the sink see what the SDK says until then."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "the condition did not come in time"
        sink.idle()
        time.sleep(0.05)


def has_sent(reported, last: int) -> bool:
    return reported.folder.sinks.exists() and f'"train": {last}' in reported.folder.sinks.read_text()


def test_values_and_texts_arrive_under_the_tutorials_keys(swanlab_server, reported, small_run, capfd):
    sink = reported.sink(mode="cloud")

    feed(sink, [{"event": "phase", "name": "train"}, small_run.sample(0, 1), small_run.sample(0, 0)])
    feed(sink, small_run.steps(1, 4))
    feed(sink, [{"event": "evaluation", "step": 4, "loss": 2.0, "perplexity": 7.389, "target_tokens": 9}])
    feed(sink, [small_run.sample(4), {"event": "checkpoint", "step": 4, "path": "…"}, small_run.end()])
    sink.close(20)

    experiment = swanlab_server.only_experiment()
    assert (experiment.project, experiment.name) == ("verse", "first-try")
    assert experiment.series("train/loss") == {2: 8.5, 4: 6.5}
    assert experiment.series("train/grad_norm") == {2: 0.5, 4: 0.5}
    assert experiment.series("train/learning_rate") == {2: 1e-4, 4: 1e-4}
    assert experiment.series("train/epoch") == {2: 0.2, 4: 0.4}
    assert experiment.series("train/tokens_per_second") == {2: 50.0, 4: 50.0}
    assert experiment.series("train/memory_gib") == {2: 3.0, 4: 3.0}
    assert experiment.series("eval/loss") == {4: 2.0}
    assert experiment.series("eval/perplexity") == {4: 7.389}
    assert experiment.texts("Prediction", 0) == [
        "【Q】question 0\n\n【LLM】answer 0 at 0",
        "【Q】question 1\n\n【LLM】answer 1 at 0",
    ]
    assert experiment.texts("Prediction", 4) == ["【Q】question 0\n\n【LLM】answer 0 at 4\n\n【GT】as it is written"]
    assert experiment.config["train"]["value"]["loggingSteps"] == 2
    assert experiment.states == ["FINISHED"]
    assert reported.warnings == []
    assert reported.notices == [f"SwanLab: {swanlab_server.host}/@tester/verse/runs/{experiment.id}"]
    assert capfd.readouterr() == ("", "")


def test_a_restart_goes_on_with_the_same_experiment_and_sends_no_step_twice(swanlab_server, reported, small_run):
    first = reported.sink()
    feed(first, [small_run.sample(0), *small_run.steps(1, 6)])
    feed_until(first, lambda: has_sent(reported, 6))
    first.close(0)  # killed

    # cut back to the checkpoint of step 4, steps 5 and 6 done again
    second = reported.sink()
    feed(second, [small_run.sample(0), *small_run.steps(1, 10), small_run.end()])
    second.close(20)

    experiment = swanlab_server.only_experiment()
    assert experiment.starts == 2
    assert experiment.twice() == []
    assert experiment.series("train/loss") == {2: 8.5, 4: 6.5, 6: 4.5, 8: 2.5, 10: 0.5}
    assert len(experiment.id) == 21
    assert reported.warnings == []


def test_what_a_killed_run_did_not_send_is_sent_by_the_next_start(swanlab_server, reported, small_run):
    first = reported.sink()
    feed(first, small_run.steps(1, 2))
    feed_until(first, lambda: has_sent(reported, 2))
    swanlab_server.fault = "fail"
    feed(first, small_run.steps(3, 6))
    first.close(0)  # killed
    swanlab_server.fault = None

    second = reported.sink()
    feed(second, [*small_run.steps(1, 8), small_run.end()])
    second.close(20)

    experiment = swanlab_server.only_experiment()
    assert sorted(experiment.series("train/loss")) == [2, 4, 6, 8]
    assert experiment.twice() == []


def test_no_step_comes_twice_though_the_server_does_not_say_yet_what_it_has(swanlab_server, reported, small_run):
    first = reported.sink()
    feed(first, [*small_run.steps(1, 6), small_run.end(30, message="stopped")])
    first.close(20)
    swanlab_server.has_summaries = False

    second = reported.sink()
    feed(second, [*small_run.steps(1, 6), small_run.end(30), *small_run.steps(7, 8), small_run.end()])
    second.close(20)

    experiment = swanlab_server.only_experiment()
    assert experiment.twice() == []
    assert sorted(experiment.series("train/loss")) == [2, 4, 6, 8]
    assert experiment.states == ["ABORTED", "FINISHED"]


def test_a_lost_memory_of_what_was_sent_is_made_up_for_by_the_server(swanlab_server, reported, small_run):
    first = reported.sink()
    feed(first, [*small_run.steps(1, 6), small_run.end(30)])
    first.close(20)
    text = reported.folder.sinks.read_text()
    reported.folder.sinks.write_text(text.replace('"train": 6', '"train": -1'))

    second = reported.sink()
    feed(second, [*small_run.steps(1, 8), small_run.end()])
    second.close(20)

    assert swanlab_server.only_experiment().twice() == []
    assert sorted(swanlab_server.only_experiment().series("train/loss")) == [2, 4, 6, 8]


def test_the_experiment_shows_that_the_run_failed(swanlab_server, reported, small_run):
    sink = reported.sink()
    feed(sink, [*small_run.steps(1, 2), small_run.end(15, message="the loss is not a number")])
    sink.close(20)

    assert swanlab_server.only_experiment().states == ["CRASHED"]


def test_a_run_that_is_killed_before_its_first_checkpoint_tells_its_first_answers_once(small_run):
    points = Points(logging_steps=2)
    log = [small_run.sample(0), {"event": "phase", "name": "train"}, small_run.sample(0), *small_run.steps(1, 1)]

    made = [point for event in log for point in points.take(event)]

    assert [(point.kind, point.step) for point in made] == [("samples", 0)]


def test_answers_cut_off_by_a_failure_are_left_to_the_next_start(small_run):
    points = Points(logging_steps=2)

    made = [point for event in (small_run.sample(4), small_run.end(1)) for point in points.take(event)]

    assert made == []


def test_the_last_step_makes_a_point_though_it_is_no_logging_step(small_run):
    points = Points(logging_steps=10)

    made = [point for number in (1, 2, 3) for point in points.take(small_run.step(number, total=3))]

    assert [(point.step, point.values["train/loss"]) for point in made] == [(3, 8.0)]
