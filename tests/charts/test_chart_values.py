"""The chart's values: as the schema says, the same fields as the platform's config, and all of them explained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from golden import chart_documents
from lorajob.platform import platform_parsing
from lorajob_runtime.contract import hubs, kubernetes
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import ConfigError

CHART = Path(__file__).resolve().parents[2] / "charts/lorajob"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
NEEDED = {"image": "registry.example.org/lorajob:0.1.0", "storage": {"uri": "s3://bucket/prefix"}}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(chart_documents.SCHEMA.read_text("utf-8"))
    return found


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    for key, below in value.items():
        if isinstance(below, dict) and below and f"{prefix}{key}" != "defaults":
            yield from paths(below, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_the_chart_takes_the_hubs_that_lorajob_has(schema: dict[str, Any]) -> None:
    platform = schema["properties"]["platform"]["properties"]

    assert tuple(platform["hubs"]["items"]["enum"]) == hubs.NAMES
    assert tuple(platform["hubEndpoints"]["properties"]) == hubs.NAMES


def test_the_chart_s_own_values_are_as_its_schema_says(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)

    jsonschema.validate(VALUES, schema)


def test_the_values_without_change_are_the_platform_s_own_defaults() -> None:
    config = platform_parsing.parse(specs.merge(VALUES["platform"], NEEDED), "values.yaml")

    plain = platform_parsing.to_dict(platform_parsing.parse(NEEDED, "platform.yaml"))
    usual = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert platform_parsing.to_dict(config) == specs.merge(plain, {"scheduling": {"tolerations": usual}})


def test_the_schema_has_exactly_the_fields_of_the_platform_s_config(schema: dict[str, Any]) -> None:
    known = set(paths(platform_parsing.to_dict(platform_parsing.parse(NEEDED, "platform.yaml")))) - {"apiVersion"}

    assert {path for path, _ in chart_documents.leaves(schema["properties"]["platform"])} == known


def test_defaults_may_hold_what_every_example_spec_says(schema: dict[str, Any]) -> None:
    examples = sorted((CHART.parents[1] / "examples").glob("*.yaml"))
    assert examples

    for example in examples:
        given = yaml.safe_load(example.read_text("utf-8"))
        # PyYAML reads YAML 1.1, where 1e-4 is a text
        given.get("train", {}).pop("learningRate", None)
        given.pop("apiVersion", None)
        values = specs.merge(VALUES, {"platform": {"defaults": given}})

        jsonschema.validate(values, schema)


@pytest.mark.parametrize("path", [field.path for field in specs.every_field() if field.option.bounds])
def test_the_numbers_that_the_schema_takes_are_those_that_a_spec_takes(schema: dict[str, Any], path: str) -> None:
    field = specs.field_at(path)
    tried = {number + change for number in field.option.bounds.values() for change in (-1, -0.5, 0, 0.5, 1)}

    for number in tried:
        if number != int(number) and not isinstance(field.default, float):
            continue
        given = specs.nest(path, int(number) if number == int(number) else number)
        fits = jsonschema.Draft202012Validator(schema["$defs"]["runSpec"]).is_valid(given)
        # that a warmup is of whole steps the chart's templates check
        assert fits is _is_spec(given) or (path, number) == ("train.warmup", 1.5), number


def _is_spec(given: dict[str, Any]) -> bool:
    try:
        specs.parse(given)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("path", chart_documents.documents(), ids=lambda path: path.name)
def test_schema_and_table_follow_the_spec_and_the_values(path: Path) -> None:
    assert path.read_text("utf-8") == chart_documents.documents()[path], "run `make golden` and look at the difference"


def test_every_value_is_explained(schema: dict[str, Any]) -> None:
    assert [path for path, described in chart_documents.leaves(schema) if not described] == []


def test_the_policy_and_the_runtime_agree_on_the_annotation_and_its_length() -> None:
    policy = (CHART / "templates/runner-policy.yaml").read_text("utf-8")

    assert set(re.findall(r"lorajob\.dev/\w+", policy)) == {kubernetes.PROGRESS_ANNOTATION}
    assert f"<= {kubernetes.PROGRESS_MAX_BYTES}" in policy


def test_chart_and_package_have_one_version() -> None:
    from lorajob_runtime import __version__

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))

    assert chart["version"] == chart["appVersion"] == __version__


@pytest.mark.parametrize("path", ["platform.limits.timeout", "platform.scheduling.gpuResource", "platform.cache.claim"])
def test_what_templates_cannot_do_without_is_not_left_out_by_a_null(schema: dict[str, Any], path: str) -> None:
    values: dict[str, Any] = json.loads(json.dumps(VALUES))
    *sections, last = path.split(".")
    at = values
    for section in sections:
        at = at[section]
    # as Helm does with a null in a user's values
    del at[last]

    assert not jsonschema.Draft202012Validator(schema).is_valid(values)
