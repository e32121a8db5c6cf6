"""Where a machine keeps things, from its environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.system import environment


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of whom the system knows no home, as in a container that runs under a number."""

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    "variables",
    [
        {"LORAJOB_CACHE": "/models", "LORAJOB_WORK": "/runs"},
        {"XDG_CACHE_HOME": "/cache"},
        {"LORAJOB_CACHE": "/models", "XDG_CACHE_HOME": "/cache"},
    ],
)
def test_no_home_is_needed_when_the_folders_are_named(variables: dict[str, str]) -> None:
    found = environment.read(variables)

    xdg = Path(variables.get("XDG_CACHE_HOME", "/")) / "lorajob"
    assert found.cache == Path(variables.get("LORAJOB_CACHE", xdg / "models"))
    assert found.work == Path(variables.get("LORAJOB_WORK", xdg / "runs"))


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("variables", [{}, {"LORAJOB_CACHE": "/models"}, {"LORAJOB_WORK": "/runs"}])
def test_no_home_folder_is_a_config_error_that_names_the_variables(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as raised:
        environment.read(variables)

    assert raised.value.message == "no home folder: set LORAJOB_CACHE and LORAJOB_WORK"


IN_A_POD = {"LORAJOB_JOB": "zhenhuan"}


@pytest.mark.parametrize(
    ("variables", "allowed"),
    [
        ({}, True),
        ({"LORAJOB_TRUST_REMOTE_CODE": "false"}, False),
        (IN_A_POD, False),
        (IN_A_POD | {"LORAJOB_TRUST_REMOTE_CODE": "true"}, True),
    ],
)
def test_code_of_repositories_may_run_on_ones_own_machine_and_where_the_platform_says_so(
    variables: dict[str, str], allowed: bool
) -> None:
    assert environment.read({"LORAJOB_CACHE": "/c", "LORAJOB_WORK": "/w"} | variables).remote_code is allowed


@pytest.mark.parametrize("listed", ["", " ", ",", "hugging"])
def test_a_list_of_hubs_that_names_none_is_refused(listed: str) -> None:
    with pytest.raises(ConfigError) as raised:
        environment.read({"HOME": "/", "LORAJOB_HUBS": listed})

    assert "LORAJOB_HUBS" in raised.value.message


def test_a_hub_is_asked_once_however_often_it_is_named() -> None:
    assert environment.read({"HOME": "/", "LORAJOB_HUBS": "hf, modelscope,hf"}).hubs == ("hf", "modelscope")
