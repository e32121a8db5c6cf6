"""Preparing a dataset in a process of its own: what crosses over to it, and what does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import UNEXPECTED, DataError, LorajobError
from lorajob_runtime.contract.spec import RunSpec, parse
from lorajob_runtime.data import check, prepare, process

KEYS = {"AWS_SECRET_ACCESS_KEY": "s3-secret", "HF_TOKEN": "hub-secret", "SWANLAB_API_KEY": "swanlab-secret"}


def _spec(source: Path, *, trusted: bool = False) -> RunSpec:
    code = {"trustRemoteCode": True, "revision": "0123abc"} if trusted else {}
    return parse({"model": code, "data": {"source": str(source)}})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"input": "Question?", "output": "Answer."}]), encoding="utf-8")
    return path


@pytest.fixture
def with_code(smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A model folder whose tokenizer is the repository's own code: `with_code("statements as it is loaded")`."""
    # where transformers copies a repository's code before it runs it
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def build(statements: str) -> Path:
        folder = tmp_path / "model"
        smollm2.tokenizer.save_pretrained(folder)
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        lines = ["import os, pathlib, time", "from transformers import PreTrainedTokenizerFast", statements]
        (folder / "own.py").write_text(
            "\n".join([*lines, "class Own(PreTrainedTokenizerFast):", "    pass", ""]), encoding="utf-8"
        )
        return folder

    return build


def test_a_process_leaves_what_preparing_in_place_leaves(smollm2: Any, source: Path, tmp_path: Path) -> None:
    here = prepare.prepare(_spec(source), model_path=smollm2.path, folder=tmp_path / "here")

    report = process.prepare(
        _spec(source), model_path=smollm2.path, folder=tmp_path / "apart", log=tmp_path / "supervisor.log"
    )

    assert report == here.to_dict()
    for file in (tmp_path / "here").iterdir():
        assert file.read_bytes() == (tmp_path / "apart" / file.name).read_bytes()


def test_a_supervisor_loads_none_of_the_libraries_that_read_and_tokenise(
    smollm2: Any, source: Path, tmp_path: Path
) -> None:
    program = """
import json, sys
from pathlib import Path
from lorajob_runtime.contract import spec; from lorajob_runtime.run import supervisor
from lorajob_runtime.data import process
model, folder, log = map(Path, sys.argv[2:])
process.prepare(spec.loads(sys.argv[1]), model_path=model, folder=folder, log=log)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    places = [str(each) for each in (smollm2.path, tmp_path / "data", tmp_path / "log")]
    spec = specs.dumps(_spec(source))

    done = subprocess.run([sys.executable, "-c", program, spec, *places], capture_output=True, text=True, check=True)

    assert not {"torch", "transformers", "tokenizers", "datasets", "pyarrow", "numpy"} & set(json.loads(done.stdout))


def test_preparing_loads_no_torch_unless_a_tokenizers_own_code_may_want_it(
    smollm2: Any, with_code: Callable[[str], Path], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python then lists every module that it imports in the log
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    plain, trusting = tmp_path / "plain.log", tmp_path / "trusting.log"

    process.prepare(_spec(source), model_path=smollm2.path, folder=tmp_path / "plain", log=plain)
    model = with_code("import torch")
    process.prepare(_spec(source, trusted=True), model_path=model, folder=tmp_path / "trusting", log=trusting)

    assert "tokenizers" in _imported(plain)
    assert "torch._C" not in _imported(plain)
    assert "torch._C" in _imported(trusting)
    assert "PyTorch" not in plain.read_text()


def test_checking_loads_no_torch_and_says_what_a_check_in_place_says(
    smollm2: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    log = tmp_path / "check.log"

    apart = process.check(_spec(source), model_path=smollm2.path, shown_rows=1, colour=False, log=log)

    here = check.check(_spec(source), model_path=smollm2.path, shown_rows=1)
    assert apart.report == json.loads(json.dumps(check.to_dict(here)))
    assert apart.text == check.check_text(here, colour=False)
    assert "tokenizers" in _imported(log)
    assert "torch._C" not in _imported(log)


def test_a_tokenizers_own_code_sees_no_key(
    with_code: Callable[[str], Path], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    seen = tmp_path / "seen"
    model = with_code(f"pathlib.Path({str(seen)!r}).write_text(repr(dict(os.environ)))")

    process.prepare(_spec(source, trusted=True), model_path=model, folder=tmp_path / "data", log=tmp_path / "log")

    assert "HF_MODULES_CACHE" in seen.read_text()
    assert not [value for value in KEYS.values() if value in seen.read_text()]


def test_what_is_wrong_with_a_dataset_is_raised_as_it_was_over_there(smollm2: Any, tmp_path: Path) -> None:
    source = tmp_path / "rows.json"
    source.write_text('[{"colour": "red"}]', encoding="utf-8")
    with pytest.raises(DataError) as here:
        prepare.prepare(_spec(source), model_path=smollm2.path, folder=tmp_path / "here")

    with pytest.raises(DataError) as apart:
        process.prepare(_spec(source), model_path=smollm2.path, folder=tmp_path / "apart", log=tmp_path / "log")

    assert (apart.value.message, apart.value.hint) == (here.value.message, here.value.hint)


def test_a_process_that_dies_without_a_word_is_told_by_the_last_line_in_the_log(
    with_code: Callable[[str], Path], source: Path, tmp_path: Path
) -> None:
    model, log = with_code("print('libfoo is missing', flush=True); os._exit(3)"), tmp_path / "supervisor.log"
    log.write_text("of an earlier step\n", encoding="utf-8")

    with pytest.raises(LorajobError) as caught:
        process.prepare(_spec(source, trusted=True), model_path=model, folder=tmp_path / "data", log=log)

    assert caught.value.message == f"the process that prepares the data ended with 3: libfoo is missing; more in {log}"
    assert log.read_text("utf-8") == "of an earlier step\nlibfoo is missing\n"


def test_a_check_that_fails_as_nobody_foresaw_has_the_trace_as_a_note(
    with_code: Callable[[str], Path], source: Path, tmp_path: Path
) -> None:
    model = with_code("PreTrainedTokenizerFast.decode = lambda self, *tokens, **options: 1 / 0")
    spec = _spec(source, trusted=True)

    with pytest.raises(LorajobError) as caught:
        process.check(spec, model_path=model, shown_rows=1, colour=False)
    with pytest.raises(LorajobError) as logged:
        process.check(spec, model_path=model, shown_rows=1, colour=False, log=tmp_path / "check.log")

    assert caught.value.failure is UNEXPECTED
    [note] = caught.value.__notes__
    for text in (note, (tmp_path / "check.log").read_text("utf-8")):
        assert "Traceback (most recent call last):" in text
        assert "ZeroDivisionError: division by zero" in text
    assert not hasattr(logged.value, "__notes__")


def test_a_check_that_ends_with_a_known_error_has_no_note(smollm2: Any, tmp_path: Path) -> None:
    source = tmp_path / "rows.json"
    source.write_text('[{"colour": "red"}]', encoding="utf-8")

    with pytest.raises(DataError) as caught:
        process.check(_spec(source), model_path=smollm2.path, shown_rows=1, colour=False)

    assert not hasattr(caught.value, "__notes__")


def test_a_process_whose_supervisor_is_killed_ends_with_it(
    with_code: Callable[[str], Path], source: Path, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    number = tmp_path / "pid"
    model = with_code(f"pathlib.Path({str(number)!r}).write_text(str(os.getpid())); time.sleep(600)")
    program = """
import sys
from pathlib import Path
from lorajob_runtime.contract import spec
from lorajob_runtime.data import process
model, folder, log = map(Path, sys.argv[2:])
process.prepare(spec.loads(sys.argv[1]), model_path=model, folder=folder, log=log)
"""
    spec = specs.dumps(_spec(source, trusted=True))
    places = [str(each) for each in (model, tmp_path / "data", tmp_path / "log")]
    supervisor = subprocess.Popen([sys.executable, "-c", program, spec, *places])
    child = int(wait_until(lambda: number.exists() and number.read_text(), what="the tokenizer's code"))

    supervisor.kill()
    supervisor.wait()

    wait_until(lambda: not _is_running(child), what="the end of the child")


def _imported(log: Path) -> set[str]:
    lines = [line for line in log.read_text().splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # one that nobody waits for keeps its number
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
