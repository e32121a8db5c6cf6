"""Downloads from both hubs, by their own clients against a server of ours."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from fakes.hub_server import COMMIT, TAG, HubServer
from golden.said import Said
from lorajob_runtime import fetch
from lorajob_runtime.contract.errors import ConfigError, CredentialsError, HubError, ModelError, StorageError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.fetch import cache
from lorajob_runtime.fetch.hubs import Source, shared_errors
from lorajob_runtime.system.environment import Environment
from waiting import wait_until

MODEL = "acme/tiny-chat"
WEIGHTS = "model.safetensors"
NEEDED = {"LICENSE", "config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json", WEIGHTS}
BOTH = pytest.mark.parametrize("kind", ["modelscope", "hf"])


def spec(kind: str, **changes: object) -> ModelSpec:
    return dataclasses.replace(ModelSpec(name=f"{kind}:{MODEL}"), **changes)  # type: ignore[arg-type]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@BOTH
def test_configuration_and_chat_template_are_looked_at_before_the_weights_are_whole(
    hub: HubServer, environment: Environment, lines: list[str], kind: str
) -> None:
    seen = []

    def inspect(config: Path) -> None:
        seen.append((config.read_bytes(), (config.parent / "chat_template.jinja").read_bytes()))
        raise ConfigError("not for this run")

    with pytest.raises(ConfigError, match="not for this run"):
        fetch.fetch(spec(kind), environment=environment, notify=lines.append, inspect=inspect)

    files = hub.root / MODEL
    assert seen == [((files / "config.json").read_bytes(), (files / "chat_template.jinja").read_bytes())]
    assert not list(environment.cache.rglob(cache.MANIFEST))


@BOTH
def test_a_download_brings_what_training_needs_and_later_runs_ask_nobody(
    hub: HubServer, environment: Environment, lines: list[str], kind: str
) -> None:
    model = fetch.fetch(spec(kind), environment=environment, notify=lines.append)

    assert names(model.path) == NEEDED | {cache.MANIFEST}
    assert (model.path / WEIGHTS).read_bytes() == (hub.root / MODEL / WEIGHTS).read_bytes()
    manifest = json.loads((model.path / cache.MANIFEST).read_text())
    assert manifest["files"][WEIGHTS]["sha256"] == hashlib.sha256((hub.root / MODEL / WEIGHTS).read_bytes()).hexdigest()
    assert model.path.parent == environment.cache / kind / "acme--tiny-chat"
    assert (model.source, model.revision) == (f"{kind}:{MODEL}", COMMIT if kind == "hf" else "master")
    assert len(lines) == 1
    assert "6 files, 3.0 MB" in lines[0]
    assert not list(model.path.parent.glob(".*"))

    hub.stop()
    again = fetch.fetch(spec(kind), environment=environment, notify=lines.append)

    assert again == model
    assert len(lines) == 1


@BOTH
def test_a_cut_connection_goes_on_where_it_broke(
    hub: HubServer, environment: Environment, lines: list[str], kind: str
) -> None:
    # Hugging Face's client takes 10 MiB at a time
    (hub.root / MODEL / WEIGHTS).write_bytes(random.Random(2).randbytes(22_000_000))
    hub.faults.cut[WEIGHTS] = 15_000_000

    model = fetch.fetch(spec(kind), environment=environment, notify=lines.append)

    first, second = hub.starts_of(WEIGHTS)
    assert first == 0
    assert 10_000_000 < second <= 15_000_000
    assert (model.path / WEIGHTS).read_bytes() == (hub.root / MODEL / WEIGHTS).read_bytes()


@BOTH
def test_wrong_content_is_never_taken_for_the_model(
    hub: HubServer, environment: Environment, lines: list[str], kind: str
) -> None:
    hub.faults.corrupt.add(WEIGHTS)

    with pytest.raises(HubError, match=r"content|Hash mismatch|hash"):
        fetch.fetch(spec(kind), environment=environment, notify=lines.append)

    assert not (environment.cache / kind / "acme--tiny-chat" / ("main" if kind == "hf" else "master")).exists()

    hub.faults.corrupt.clear()
    hub.asked.clear()
    model = fetch.fetch(spec(kind), environment=environment, notify=lines.append)
    assert [item.path for item in hub.asked] == [WEIGHTS], "what was checked before comes again"
    assert (model.path / WEIGHTS).read_bytes() == (hub.root / MODEL / WEIGHTS).read_bytes()


def test_a_small_file_is_checked_too_though_hugging_face_lists_no_sha256_of_it(
    hub: HubServer, environment: Environment, lines: list[str]
) -> None:
    hub.faults.corrupt.add("config.json")

    with pytest.raises(HubError, match=r"config\.json"):
        fetch.fetch(spec("hf"), environment=environment, notify=lines.append)


@BOTH
@pytest.mark.parametrize(
    ("status", "error", "hint"),
    [(404, ModelError, "check the name"), (401, CredentialsError, "TOKEN"), (403, CredentialsError, "TOKEN")],
)
def test_what_a_hub_refuses_has_its_class_and_a_hint(
    hub: HubServer, environment: Environment, lines: list[str], kind: str, status: int, error: type, hint: str
) -> None:
    hub.faults.status = status

    with pytest.raises(error, match=f"{kind}:{MODEL}") as caught:
        fetch.fetch(spec(kind), environment=environment, notify=lines.append)

    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


@BOTH
def test_a_hub_that_is_down_can_be_tried_again(
    hub: HubServer, environment: Environment, lines: list[str], kind: str
) -> None:
    hub.stop()

    with pytest.raises(HubError, match=f"{kind}:{MODEL} cannot be downloaded"):
        fetch.fetch(spec(kind), environment=environment, notify=lines.append)


def test_an_unknown_revision_is_the_models_fault(hub: HubServer, environment: Environment, lines: list[str]) -> None:
    with pytest.raises(ModelError, match="no revision 'v9'"):
        fetch.fetch(spec("hf", revision="v9"), environment=environment, notify=lines.append)


def test_a_commit_is_found_in_the_copy_of_the_branch_that_led_to_it(
    hub: HubServer, environment: Environment, lines: list[str]
) -> None:
    model = fetch.fetch(spec("hf"), environment=environment, notify=lines.append)
    hub.stop()

    assert fetch.fetch(spec("hf", revision=COMMIT), environment=environment, notify=lines.append) == model


def test_the_second_hub_is_asked_when_the_first_has_not_got_it(
    hub: HubServer, environment: Environment, lines: list[str], said: Said
) -> None:
    shutil.copytree(hub.root / MODEL, hub.root / "Qwen/Qwen3-8B")
    hub.faults.missing.add("modelscope")

    model = fetch.fetch(ModelSpec(name="qwen3-8b"), environment=environment, notify=lines.append)

    assert model.source == "hf:Qwen/Qwen3-8B"
    said(lines[0])


def test_when_no_hub_has_it_the_error_names_them_all(
    hub: HubServer, environment: Environment, lines: list[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        fetch.fetch(ModelSpec(name="qwen3-8b"), environment=environment, notify=lines.append)

    assert "modelscope:Qwen/Qwen3-8B" in caught.value.message
    assert "hf:Qwen/Qwen3-8B" in caught.value.message


def test_python_files_come_only_when_they_may_run_and_weights_do_not_come_twice(
    hub: HubServer, environment: Environment, lines: list[str]
) -> None:
    pinned = spec("modelscope", revision=TAG)
    plain = fetch.fetch(pinned, environment=environment, notify=lines.append)
    assert not (plain.path / "modeling_tiny.py").exists()

    trusting = dataclasses.replace(pinned, trust_remote_code=True)
    trusted = fetch.fetch(trusting, environment=environment, notify=lines.append)

    assert (trusted.path / "modeling_tiny.py").exists()
    assert hub.starts_of(WEIGHTS) == [0]


@pytest.mark.parametrize(
    ("consent", "revision", "message"),
    [
        (False, "abc", "model.trustRemoteCode is true: this platform does not run code of model repositories"),
        (True, None, "model.trustRemoteCode is true: it needs model.revision, the commit whose code you have read"),
        (
            True,
            "master",
            "model.trustRemoteCode is true and model.revision 'master', which moves: it must be the commit whose code "
            "you have read, or on ModelScope the tag",
        ),
    ],
)
def test_code_comes_only_with_the_platforms_consent_and_at_a_revision(
    hub: HubServer,
    environment: Environment,
    lines: list[str],
    consent: bool,
    revision: str | None,
    message: str,
) -> None:
    settings = dataclasses.replace(environment, remote_code=consent)

    with pytest.raises(ConfigError) as caught:
        fetch.fetch(
            spec("modelscope", trust_remote_code=True, revision=revision), environment=settings, notify=lines.append
        )

    assert caught.value.message == message
    assert not hub.asked


def test_code_from_hugging_face_comes_only_at_a_commit(
    hub: HubServer, environment: Environment, lines: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch.fetch(spec("hf", trust_remote_code=True, revision=TAG), environment=environment, notify=lines.append)
    assert COMMIT in caught.value.message
    assert not hub.asked

    found = fetch.fetch(spec("hf", trust_remote_code=True, revision=COMMIT), environment=environment, notify=print)

    assert (found.path / "modeling_tiny.py").exists()


def test_pickled_weights_are_refused_before_anything_is_downloaded(
    hub: HubServer, environment: Environment, lines: list[str]
) -> None:
    (hub.root / MODEL / WEIGHTS).unlink()

    with pytest.raises(ModelError, match="pickled weights only"):
        fetch.fetch(spec("hf"), environment=environment, notify=lines.append)

    assert not hub.asked


def test_a_full_disk_is_noticed_before_the_download(
    hub: HubServer, environment: Environment, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))

    with pytest.raises(StorageError, match=r"needs 3\.0 MB more .* has 1 kB free"):
        fetch.fetch(spec("hf"), environment=environment, notify=lines.append)

    assert not hub.asked


def test_a_cache_that_cannot_be_written_is_storages_fault(
    hub: HubServer, environment: Environment, lines: list[str], tmp_path: Path
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")

    with pytest.raises(StorageError, match="model cache"):
        fetch.fetch(spec("hf"), environment=dataclasses.replace(environment, cache=blocked), notify=lines.append)


def test_two_processes_download_once(hub: HubServer, environment: Environment) -> None:
    hub.faults.held[WEIGHTS] = threading.Event()
    program = (
        "import sys; from lorajob_runtime import fetch; from lorajob_runtime.system import environment;"
        "from lorajob_runtime.contract.spec import ModelSpec;"
        f"print(fetch.fetch(ModelSpec(name='modelscope:{MODEL}'), environment=environment.read(),"
        " notify=lambda line: print(line, flush=True)))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    wait_until(lambda: hub.asked, seconds=60, what="the first request")
    hub.faults.held[WEIGHTS].set()
    said = [process.communicate(timeout=60)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], said
    assert hub.starts_of(WEIGHTS) == [0]
    assert sum("waiting for process" in text for text in said) <= 1


def test_a_killed_download_is_taken_up_by_the_next(hub: HubServer, environment: Environment, lines: list[str]) -> None:
    never = threading.Event()
    hub.faults.held[WEIGHTS] = never
    hub.faults.cut[WEIGHTS] = 2_000_000
    program = (
        "from lorajob_runtime import fetch; from lorajob_runtime.system import environment;"
        "from lorajob_runtime.contract.spec import ModelSpec;"
        f"fetch.fetch(ModelSpec(name='modelscope:{MODEL}'), environment=environment.read(), notify=print)"
    )
    first = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = environment.cache / "modelscope/acme--tiny-chat/.partial-master"
    # small files come beside it, and some may be under way when the first is killed; checked ones are in the journal
    wait_until(
        lambda: (
            any(journal.stat().st_size for journal in partial.glob(".verified.jsonl"))
            and max(_sizes(partial), default=0) >= 1_000_000
        ),
        seconds=60,
        what="a whole file and the first megabyte of the weights",
    )
    clients = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    first.kill()
    first.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in clients), what="the client's end")
    assert clients
    assert not partial.with_name("master").exists()
    never.set()
    hub.asked.clear()

    model = fetch.fetch(spec("modelscope"), environment=environment, notify=lines.append)

    [start] = hub.starts_of(WEIGHTS)
    assert start >= 1_000_000
    assert "here already" in lines[-1]
    assert (model.path / WEIGHTS).read_bytes() == (hub.root / MODEL / WEIGHTS).read_bytes()


def test_a_copy_that_lost_a_file_is_mended(hub: HubServer, environment: Environment, lines: list[str]) -> None:
    model = fetch.fetch(spec("modelscope"), environment=environment, notify=lines.append)
    (model.path / "tokenizer.json").unlink()
    hub.asked.clear()

    again = fetch.fetch(spec("modelscope"), environment=environment, notify=lines.append)

    assert (again.path / "tokenizer.json").exists()
    assert hub.starts_of(WEIGHTS) == []


def _sizes(folder: Path) -> Iterator[int]:
    """Sizes of the files in a folder in which a download goes on."""
    for path in folder.rglob("*") if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_size


def test_a_hub_that_is_down_is_named_by_its_host_without_what_is_secret() -> None:
    request = requests.Request("GET", "https://me:geheim@hub.example:8443/api/models/acme/tiny-chat").prepare()
    error = OSError("cannot list the files: [Errno 111] Connection refused")
    error.__cause__ = requests.ConnectionError("[Errno 111] Connection refused", request=request)

    found = shared_errors.explain(error, Source(kind="hf", id="acme/tiny-chat", revision="main"))

    assert isinstance(found, HubError)
    assert "from hub.example:8443" in found.message
    assert "geheim" not in found.message


def test_in_a_pod_nobody_is_told_to_set_a_variable_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "LORAJOB_CACHE" in cache.unwritable_hint()

    monkeypatch.setenv("LORAJOB_JOB", "n")

    assert "LORAJOB" not in cache.unwritable_hint()
