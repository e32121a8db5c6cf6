"""The comparison with other trainers, without them: their rows and settings, equal losses before speeds, the table."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorajob_runtime.contract import spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.train import job as train_job
from lorajob_runtime.train.job import TrainJob

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
try:
    from peers import measured, rows, sides
    from peers.measured import Failed, Measured
finally:
    sys.path.remove(str(BENCH))

REFERENCE = [3.2, 3.1, 3.0]


def _measured(speed: float, losses: list[float] | None = None) -> Measured:
    return Measured(tokens_per_second=speed, first_step_seconds=2.0, losses=losses or REFERENCE, memory_bytes=3 * 2**20)


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        pytest.param(REFERENCE, None, id="the same"),
        pytest.param([3.201, 3.099, 3.0005], None, id="other draws"),
        pytest.param([3.2, 3.1, 3.04], "step 3", id="one step far off"),
        pytest.param([3.225, 3.125, 3.025], "mean", id="every step a little off"),
        pytest.param([3.2, 3.1], "2 steps", id="a step missing"),
        pytest.param([3.2, math.nan, 3.0], "step 2", id="not a number"),
    ],
)
def test_losses_are_equal_within_what_other_draws_change(losses: list[float], reason: str | None) -> None:
    found = measured.difference(losses, REFERENCE)

    assert found is None if reason is None else reason in (found or "")


def test_a_side_whose_losses_differ_gets_the_reason_and_no_speed() -> None:
    outcomes = {
        "tutorial": [_measured(100), _measured(110)],
        "leaks": [_measured(987), _measured(987, [2.9, 2.8, 2.7])],
        "breaks": [Failed(reason="ended with 1: no such module"), _measured(987)],
        "lorajob": [_measured(300), _measured(341)],
    }

    printed = measured.table(outcomes, "tutorial")
    kept = measured.as_json(outcomes, "tutorial", {"command": "…"})

    assert "| tutorial | 105 | 2.0 | 3.1000 | 3 | 0 |" in printed
    assert "| lorajob | 320 |" in printed
    assert "lorajob / tutorial: 3.05x (rounds: 3.00, 3.10)" in printed
    assert "987" not in printed
    assert "leaks has no speed: the loss of step 1 is 2.9000, and 3.2000 of the reference" in printed
    assert "breaks has no speed: ended with 1: no such module" in printed
    assert "987" not in json.dumps(kept["sides"])
    assert kept["sides"]["lorajob"][1]["tokens_per_second"] == 341
    assert set(kept["without_speed"]) == {"leaks", "breaks"}


def test_lorajob_is_held_to_the_same_losses() -> None:
    printed = measured.table({"tutorial": [_measured(100)], "lorajob": [_measured(987, [2.0, 2.0, 2.0])]}, "tutorial")

    assert "| lorajob | - | - | 2.0000 | - | - |" in printed
    assert "lorajob / " not in printed


def test_without_a_reference_no_side_has_a_speed() -> None:
    printed = measured.table({"tutorial": [Failed(reason="killed")], "lorajob": [_measured(987)]}, "tutorial")

    assert "987" not in printed
    assert "killed" in printed


def test_the_first_step_is_not_in_the_speed() -> None:
    found = measured.measure([100, 50, 70], [9.0, 1.0, 2.0], REFERENCE, 1)

    assert (found.tokens_per_second, found.first_step_seconds) == (40, 9)


@pytest.mark.parametrize(
    ("lengths", "limit", "count"),
    [([[5, 5, 5, 5]], 20, 1), ([[5, 5, 5, 5], [9, 8, 7, 6]], 16, 2), ([[9, 9, 9, 1]], 10, 3), ([[30, 2]], 8, 2)],
)
def test_rows_of_a_step_are_packed_whole_once_and_into_as_many_packs_in_every_step(
    lengths: list[list[int]], limit: int, count: int
) -> None:
    packed = rows.packs_of_steps(lengths, limit)

    assert [len(groups) for groups in packed] == [count] * len(lengths)
    for of_step, groups in zip(lengths, packed, strict=True):
        assert sorted(i for group in groups for i in group) == list(range(len(of_step)))
        assert all(sum(of_step[i] for i in group) <= max(limit, *of_step) for group in groups)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two steps of 16 rows, as train.py prepares it."""
    root = tmp_path_factory.mktemp("sides")
    run = spec.parse({"name": "b", "model": {"name": str(root)}, "train": {"maxSteps": 2, "precision": "fp32"}})
    found = RunFolder(root)
    found.data.mkdir(parents=True)
    random = np.random.default_rng(0)
    TokenRows.of(
        (random.integers(3, 99, n).astype(np.int32), np.arange(n) > n // 2) for n in random.integers(5, 400, 40)
    ).save(found.train_rows)
    job = TrainJob(
        spec=run,
        model_path=str(root),
        model_source="",
        model_revision="",
        base_name="",
        device="cpu",
        resume_step=None,
        attempt=1,
    )
    found.train_job.write_text(job.dumps())
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_peers_train_on_the_rows_of_each_step_in_its_order(folder: RunFolder, tmp_path: Path, *, packed: bool) -> None:
    settings = sides.settings_of(folder, tmp_path, packed=packed)
    given = [json.loads(line) for line in Path(settings["rows"]).read_text().splitlines()]
    all_rows = TokenRows.load(folder.train_rows)
    steps = sides.steps_of(train_job.loads(folder.train_job.read_text()), all_rows)

    a_step = settings["batch_size"] * settings["gradient_accumulation"]
    assert len(given) == 2 * a_step
    for step, numbers in enumerate(steps):
        documents = [
            document for each in given[step * a_step : (step + 1) * a_step] for document in _documents_of(each)
        ]
        expected = [_documents_of(rows.example(all_rows, [number]))[0] for number in numbers]
        assert (sorted(documents) == sorted(expected)) if packed else (documents == expected)
    assert settings["batch_size"] == (1 if packed else 4)
    if packed:
        assert max(len(each["input_ids"]) for each in given) <= settings["max_length"] == 1024


def _documents_of(example: dict[str, list[int]]) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of every document of a row that was written for a peer."""
    ends = np.cumsum([0, *example["lengths"]])
    return [(example["input_ids"][a:b], example["labels"][a:b]) for a, b in itertools.pairwise(ends)]


def test_a_step_of_fewer_rows_is_refused_for_peers(folder: RunFolder, tmp_path: Path) -> None:
    few = RunFolder(tmp_path / "few")
    few.data.mkdir(parents=True)
    TokenRows.of([(np.arange(3, 9, dtype=np.int32), np.ones(6, bool))] * 20).save(few.train_rows)
    few.train_job.write_text(folder.train_job.read_text())

    with pytest.raises(ValueError, match="step 2 has fewer than 16 rows"):
        sides.settings_of(few, tmp_path, packed=False)


@pytest.mark.parametrize("side", ["trl", "llamafactory"])
def test_a_peers_program_reads_only_settings_that_it_is_given(folder: RunFolder, tmp_path: Path, side: str) -> None:
    program = (BENCH / "peers" / f"{side}_side.py").read_text()

    asked = set(re.findall(r'settings\["(\w+)"\]', program))

    assert asked
    assert asked <= sides.settings_of(folder, tmp_path, packed=False).keys()


def _program(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A peer's program as a module: what it needs of the peer it imports when it trains."""
    monkeypatch.syspath_prepend(str(BENCH / "peers"))
    return importlib.import_module(name)


def test_rows_for_llamafactory_number_their_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    program = _program("llamafactory_side", monkeypatch)

    row = program.columns({"input_ids": [1, 2, 3], "labels": [-100, 2, -100], "lengths": [2, 1]})

    assert (row["input_ids"], row["labels"], row["attention_mask"]) == ([1, 2, 3], [-100, 2, -100], [1, 1, 2])


def test_llamafactorys_options_are_the_settings(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = _program("llamafactory_side", monkeypatch)
    settings = sides.settings_of(folder, tmp_path, packed=True)

    options = program.options(settings, packed=True)

    assert options["neat_packing"]
    assert options["disable_shuffling"]
    assert (options["lora_rank"], options["lora_alpha"], options["lora_dropout"]) == (8, 32, 0.1)
    assert options["lora_target"].split(",") == sides.TARGETS
    assert options["gradient_accumulation_steps"] == settings["gradient_accumulation"]
    assert options["bf16"] is False


def test_rows_for_trl_have_lengths_only_where_they_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _program("trl_side", monkeypatch)
    single = {"input_ids": [1, 2], "labels": [-100, 2], "lengths": [2]}
    joined = {"input_ids": [1, 2, 3], "labels": [-100, 2, -100], "lengths": [2, 1]}
    path = tmp_path / "rows.jsonl"

    path.write_text(json.dumps(single))
    assert program.rows_of(path).column_names == ["input_ids", "labels"]
    path.write_text("\n".join(map(json.dumps, (single, joined))))
    assert program.rows_of(path)["seq_lengths"][:] == [[2], [2, 1]]


def test_a_program_that_fails_is_an_outcome_with_its_last_line(folder: RunFolder, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the model\\nis not there')"]

    outcome = sides.run_program(command, folder, tmp_path / "output.json", {})

    assert outcome == Failed(reason="ended with 1: is not there")


def test_what_a_program_left_is_measured_with_the_tokens_of_its_steps(folder: RunFolder, tmp_path: Path) -> None:
    output = tmp_path / "output.json"
    left = {"steps": [{"seconds": 2.0, "loss": 3.0}] * 2, "memory_bytes": 7, "versions": {"trl": "1"}}
    write = f"import pathlib; pathlib.Path({str(output)!r}).write_text({json.dumps(left)!r})"

    outcome = sides.run_program([sys.executable, "-c", write], folder, output, {})

    assert isinstance(outcome, Measured)
    all_rows = TokenRows.load(folder.train_rows)
    second = sides.steps_of(train_job.loads(folder.train_job.read_text()), all_rows)[1]
    assert outcome.tokens_per_second == sum(all_rows.lengths[number] for number in second) / 2
    assert (outcome.memory_bytes, outcome.versions) == (7, {"trl": "1"})


def test_a_peer_without_its_environment_is_named_with_what_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.syspath_prepend(str(BENCH))

    with pytest.raises(SystemExit, match=r"trl and llamafactory: no environment .*`make bench-peers` builds it"):
        runpy.run_path(str(BENCH / "train.py"), run_name="__main__")


def test_the_clock_of_the_peers_keeps_seconds_and_loss_of_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _program("steps", monkeypatch)
    clock = steps.Clock()

    for loss in REFERENCE:
        clock.on_step_begin(None, None, None)
        clock.on_step_end(None, None, None)
        clock.on_log(None, None, None, logs={"loss": loss})
    clock.on_log(None, None, None, logs={"train_runtime": 3.0})

    assert [step["loss"] for step in clock.steps] == REFERENCE
    assert all(step["seconds"] >= 0 for step in clock.steps)


def test_requirements_of_peers_are_pinned_and_hashed() -> None:
    for side in ("trl", "llamafactory"):
        text = (BENCH / "peers" / f"requirements-{side}.txt").read_text()
        pinned = re.findall(r"(?m)^([a-z0-9._-]+)==\S+", text)
        assert side in pinned
        assert "torch" in pinned
        assert len(re.findall(r"--hash=sha256:", text)) >= len(pinned)
        assert "http://" not in text
        assert "https://" not in text
