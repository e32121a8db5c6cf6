"""A new hub is one module in fetch/hubs and one entry of the registry: a copy of lorajob that has both uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lorajob
import lorajob_runtime
from fakes.hub_server import HubServer

PROGRAMS = Path(__file__).parent / "programs"
REGISTRY = "ALL = (MODELSCOPE, HUGGING_FACE, "
ENTRY = """Hub(name="acme", title="Acme", prefix="acme:", example="ORG/NAME", module="acme", variables=("ACME_",),
    default_revision="main", has_revisions=True, is_model_hub=True, catalog_field="acme", token_variable="ACME_TOKEN",
    endpoint_variable="ACME_ENDPOINT", cache_variable="ACME_HOME", cache_folder="acme",
    page="https://acme.example/{id}"), """


@pytest.fixture
def with_hub(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """Variables with which a new process has a lorajob that knows the hub, whose models are on this machine."""
    for package in (lorajob, lorajob_runtime):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, tmp_path / "src" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    runtime = tmp_path / "src" / "lorajob_runtime"
    shutil.copy(PROGRAMS / "acme.py", runtime / "fetch" / "hubs")
    registry = runtime / "contract" / "hubs.py"
    text = registry.read_text()
    assert text.count(REGISTRY) == 1
    registry.write_text(text.replace(REGISTRY, REGISTRY + ENTRY))
    settings = {"PYTHONPATH": str(tmp_path / "src"), "ACME_ENDPOINT": hub.url, "ACME_TOKEN": "of-acme"}
    return {**os.environ, **settings}


def run(program: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *program], env=variables, capture_output=True, text=True, check=False)


def test_a_hub_of_one_module_and_one_entry_works_from_the_spec_to_the_weights(
    hub: HubServer, with_hub: dict[str, str]
) -> None:
    done = run([str(PROGRAMS / "use_new_hub.py")], with_hub)

    assert done.returncode == 0, done.stderr
    used: dict[str, Any] = json.loads(done.stdout)
    assert used["weights"].startswith("acme:acme/tiny-chat, ")
    assert used["variables"]["LORAJOB_HUBS"] == "acme,hf"
    assert used["variables"]["ACME_ENDPOINT"] == "http://10.0.0.1:8080"
    assert used["variables"]["ACME_HOME"].endswith("/acme")
    assert used["hubs"] == ["modelscope", "hf", "acme"]
    assert used["files"]["model.safetensors"] == (hub.root / "acme/tiny-chat/model.safetensors").stat().st_size
    assert used["source"] == ["acme:acme/tiny-chat", "main"]
    assert used["folder"] == "acme/acme--tiny-chat/main"
    assert used["page"] == "https://acme.example/acme/tiny-chat"
    assert {"ACME_ENDPOINT", "ACME_TOKEN"} <= set(used["keys"])
    assert "Bearer of-acme" in hub.tokens


def test_its_refusals_have_our_classes_and_name_what_to_do(with_hub: dict[str, str]) -> None:
    used = json.loads(run([str(PROGRAMS / "use_new_hub.py")], with_hub).stdout)

    assert used["missing"] == [
        "model",
        "no such model: acme:acme/none at revision 'main'",
        "check the name on the hub; for a private model set ACME_TOKEN",
    ]
    assert used["misspelt"][:2] == [
        "model",
        "'acme:tiny-chat' is not the name of a model: it must be like acme:ORG/NAME",
    ]
    assert used["moving"][0] == "config"


def test_the_command_line_plans_with_it_and_names_it_in_its_messages(with_hub: dict[str, str]) -> None:
    planned = run(["-m", "lorajob", "plan", "--model", "acme:acme/tiny-chat"], with_hub)
    unknown = run(["-m", "lorajob", "plan", "--model", "acme/tiny-chat"], with_hub)

    assert planned.returncode == 0, planned.stderr
    assert "acme:acme/tiny-chat" in planned.stdout
    assert unknown.returncode != 0
    assert "write modelscope:acme/tiny-chat or hf:acme/tiny-chat or acme:acme/tiny-chat" in unknown.stderr
