"""The numbers of docs/models.md are those that `lorajob plan` counts, and docs/plan.md has the types that it knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorajob.spec.resolve import resolve
from lorajob_runtime.contract import catalog
from lorajob_runtime.contract.text import parameter_count
from lorajob_runtime.models import architecture, families, placement
from lorajob_runtime.models.gpu_sizes import GIBIBYTE

ROOT = Path(__file__).parents[3]
GPU_BYTES = int(79.1 * GIBIBYTE)
"""What torch finds of a GPU that is called one of 80 GB."""

PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.partition("\n## ")[0].splitlines()
    if line.startswith("|") and (cells := [cell.strip() for cell in line.replace("`", "").strip("|").split("|")])
}
MODELS = ROWS[""]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("experts", "trained", "fewest"),
    [
        (True, "trained by its recipe", "fewest GPUs of 80 GB"),
        (False, "trained with --experts false", "the same with --experts false"),
    ],
    ids=["with-experts", "without"],
)
def test_the_page_has_the_sizes_of_every_recipe(name: str, experts: bool, trained: str, fewest: str) -> None:
    shown = {title: cells[MODELS.index(name)] for title, cells in ROWS.items()}
    shapes = architecture.read(catalog.get(name).config)
    if not shapes.has_experts and not experts:
        assert shown[trained] == shown[fewest] == ""
        return
    file = ROOT / "examples" / shown["spec file"].rpartition("/")[2].strip(")")
    spec = resolve([file], {"lora.experts": experts} if shapes.has_experts else {}, []).spec

    enough = placement.min_gpus(shapes, spec, gpu_bytes=GPU_BYTES)

    assert spec.model.name == name
    assert enough is not None
    assert shown[trained] == parameter_count(enough.placement.estimate.trained_parameters)
    assert shown[fewest] == str(enough.gpus * enough.nodes)


def test_the_page_of_plans_names_every_type_whose_shapes_are_known() -> None:
    page = (ROOT / "docs" / "plan.md").read_text("utf-8")
    listed = page.partition("Known types are ")[2].partition(";")[0]

    assert set(listed.replace(" and ", ", ").split(", ")) == set(families.model_types())
