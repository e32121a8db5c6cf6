"""Each of the five recipes from its spec file: trained, killed, typed again, reloaded by others and asked."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import family_runs
from fakes.hub_server import HubServer
from families import FAMILIES
from family_runs import RECIPES, Person
from lorajob_runtime import generate
from lorajob_runtime.contract import events, layout, spec
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.data.chat.tokenizer import load_tokenizer
from lorajob_runtime.data.prepare import tokenise
from lorajob_runtime.generate import Request, batch
from lorajob_runtime.generate.generator import Generator
from lorajob_runtime.publish import adapter_lookup
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.system import environment
from process_trees import standing_still
from waiting import wait_until

NAME = "run"
STEPS = 20
SETTINGS = [f"train.maxSteps={STEPS}", "train.saveSteps=5", "train.batchSize=2", "train.gradientAccumulation=2"]
SETTINGS += ["report.swanlab.mode=disabled", "report.samples.count=4", "report.samples.maxNewTokens=4"]
# a random model has so much to learn that the recipe's rate would hardly show
SETTINGS += ["train.learningRate=1e-2"]

PARTS = {
    "qwen3": {"dense", "attention"},
    "qwen2.5": {"dense", "attention"},
    "hunyuan": {"attention", "shared", "experts"},
    "glm-4.5": {"attention", "dense", "shared", "experts"},
    "minimax-m2": {"attention", "experts"},
}
"""Which parts of each model its recipe trains adapters on: all that there are, but for the router."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Runs:
    """What one family's recipe came to: the run `whole`, and `broken`, which was killed and typed again.

    What a kill leaves is a copy of what `whole` had written while its processes stood still: no start of its own.
    """

    family: str
    model: Path
    person: Person
    whole: RunFolder
    broken: RunFolder
    told: str
    """What the second call of `broken` said."""


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    server = HubServer(tmp_path_factory.mktemp("hub"))
    yield server
    server.stop()


@pytest.fixture(scope="module", params=FAMILIES)
def runs(request: pytest.FixtureRequest, hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Both runs of a family's recipe, which take the model from a hub and data of the kind that the recipe is for."""
    family, root = request.param, tmp_path_factory.mktemp(request.param)
    model = family_runs.put_on_hub(family, hub, root)
    person = Person(root, hub, tmp_path_factory.getbasetemp() / "family-cache")
    data = family_runs.write_data(family, root, STEPS * 4 + 5)

    def line(storage: str) -> list[str]:
        example = ["run", "-f", str(RECIPES[family].file), "--data", str(data), "--name", NAME]
        return [*example, "--storage", storage, "--processes", "1", *family_runs.settings(*SETTINGS)]

    whole, broken = RunFolder(root / "stored" / NAME), RunFolder(root / "killed" / NAME)
    with person.start(*line("stored")) as first:
        try:
            wait_until((whole.checkpoint(5) / layout.MANIFEST).exists, seconds=400, what="a first checkpoint")
            with standing_still(first.pid):
                shutil.copytree(root / "stored", root / "killed", symlinks=True)
            _, told = first.communicate(timeout=400)
            assert first.returncode == 0, told
        finally:
            first.kill()
    again = person.run(*line("killed"))
    assert again.returncode == 0, again.stderr
    return Runs(family, model, person, whole, broken, again.stderr)


def test_a_killed_run_typed_again_ends_bit_for_bit_as_one_that_was_never_stopped(runs: Runs) -> None:
    resumed = re.search(r"going on from the checkpoint of step (\d+)", runs.told)

    assert resumed is not None
    assert 5 <= int(resumed[1]) < STEPS, "it was killed too late to show anything"
    for file in (layout.ADAPTER_WEIGHTS, layout.OPTIMIZER):
        key = layout.checkpoint_key(STEPS, file)
        assert (runs.broken.root / key).read_bytes() == (runs.whole.root / key).read_bytes()
    assert _losses(runs.broken) == _losses(runs.whole)
    assert min(_losses(runs.whole)[-3:]) < _losses(runs.whole)[0], "it learned nothing"


def test_every_part_that_the_recipe_asks_for_is_trained_and_shown_before_and_after(runs: Runs) -> None:
    log = list(events.read(runs.whole.events))
    targets = next(event for event in log if event.get("name") == "targets")
    samples = [event["step"] for event in log if event["event"] == "sample"]

    assert set(targets["groups"]) == PARTS[runs.family]
    before = spec.loads(runs.whole.spec.read_text()).report.samples.before
    assert samples.count(0) == (4 if before is None else before)
    assert samples.count(STEPS) == 4


def test_the_published_adapter_reloads_in_plain_peft_with_no_difference(runs: Runs) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lorajob_runtime.train.lora import attach

    recipe = spec.loads(runs.broken.spec.read_text())
    ids = torch.arange(5, 45).unsqueeze(0)
    weights = load_file(runs.broken.adapter / layout.ADAPTER_WEIGHTS)

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(runs.model), runs.broken.adapter).eval()
    ours = attach.attach(AutoModelForCausalLM.from_pretrained(runs.model), recipe.lora, seed=1, experts=True).eval()
    attach.load_adapter(ours, weights)

    with torch.no_grad():
        answer = plain(ids).logits
        assert torch.equal(answer, ours(ids).logits)
        with plain.disable_adapter():
            assert (answer - plain(ids).logits).abs().max() > 0.1, "the adapter does nothing"
    assert all(item.abs().max() > 0 for name, item in weights.items() if "lora_B" in name), "a target never learned"


def test_generate_sends_what_was_trained_token_for_token(runs: Runs, tmp_path: Path) -> None:
    recipe = spec.loads(runs.whole.spec.read_text())
    tokens = tokenise(recipe, load_tokenizer(runs.model), tmp_path)
    first = RECIPES[runs.family].row(spec.row_slice(recipe.data.rows).start or 0)
    ids, targets = tokens.train.row(0)

    with adapter_lookup.find(str(runs.whole.root), storage="", environment=environment.read({})) as found:
        generator = Generator.load(found.base, runs.model, found.adapter, thinking=found.thinking)
        sent = generator.prompt(batch.parse([json.dumps(_asked(first))], system=found.system)[0].messages)

    state = checkpoint.read_state(runs.whole.checkpoint(STEPS))
    assert tokens.report.fingerprint == state["data_fingerprint"], "these are not the tokens that it was trained on"
    assert sent == ids[: int(targets.argmax())].tolist()


@pytest.mark.parametrize("place", ["", "checkpoints/step-000010"], ids=["adapter", "checkpoint"])
def test_generate_answers_with_the_adapter_of_a_run_or_of_any_checkpoint(runs: Runs, place: str) -> None:
    answer, said = io.StringIO(), list[str]()
    asked = Request(target=str(runs.broken.root / place), prompt="你是谁？", max_new_tokens=4, reasoning="show")

    generate.run(asked, answer, io.StringIO(), environment=environment.read(runs.person.variables), notify=said.append)

    # what so small a model says first may be its end
    assert answer.getvalue().strip() or said[-1].startswith("the answer is empty")


def _losses(folder: RunFolder) -> list[float]:
    return [event["loss"] for event in events.read(folder.events) if event["event"] == "step"]


def _asked(row: family_runs.Row) -> dict[str, Any]:
    """What a dataset's row asks, in the form in which a person asks the same."""
    if turns := row.get("conversations"):
        return {"prompt": turns[0]["value"]}
    if row["input"]:
        return {"prompt": row["input"], "system": row["instruction"]}
    return {"prompt": row["instruction"]}
