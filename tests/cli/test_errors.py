"""What a wrong command line says: one line that names the flag, the file or the field, and exit code 2."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from calling import Call
from lorajob import __main__ as entry
from lorajob_runtime.contract.errors import STORAGE, StorageError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run --learning-rate abc", "--learning-rate is 'abc': it must be a number"),
        ("run --learning-rate 5", "--learning-rate is 5.0: it must be above 0 and below 1"),
        ("run --batch-size 2.5", "--batch-size is 2.5: it must be a whole number"),
        ("run --max-steps 0", "--max-steps is 0: it must be at least 1, or null"),
        ("run --set lora.alpha=1e999", "--set lora.alpha=1e999: lora.alpha is inf: it must be a number"),
        ("run --max-length 99999999999", "--max-length is 99999999999: it must be from 2 to 10000000 tokens"),
        ("run --storage s3://", "--storage is 's3://': it must be a folder, or s3://BUCKET/PREFIX"),
        ("run --data s3://bucket/", "--data is 's3://bucket/': it must be a file, or s3://BUCKET/KEY"),
        ("run --data=", "--data is '': it must be a file, or s3://BUCKET/KEY"),
        ("plan --data=", "--data is '': it must be a file, or s3://BUCKET/KEY"),
        ("data check ''", "--data is '': it must be a file, or s3://BUCKET/KEY"),
        ("run --data https://a.example/x.json", "--data is 'https://a.example/x.json': it must be a file, or s3://"),
        ("run --data hf:a/b", "--data is 'hf:a/b': it must be a file, or s3://BUCKET/KEY"),
        ("data check file:///x.json", "'file:///x.json': it must be a file, or s3://BUCKET/KEY"),
        ("run --storage=", "--storage is '': it must be a folder, or s3://BUCKET/PREFIX"),
        ("run --storage oss://b/x", "--storage is 'oss://b/x': it must be a folder, or s3://BUCKET/PREFIX"),
        ("run --model-source=", "--model-source is '': it must be modelscope:ORG/NAME"),
        ("run --model s3://", "--model is 's3://': it must be a catalog name, modelscope:ORG/NAME"),
        ("run --scheduler fast", "--scheduler is 'fast': it must be one of linear, cosine, constant"),
        ("run --experts maybe", "--experts is 'maybe': it must be auto or true or false"),
        ("run --rows 5-10", "--rows is '5-10': it must be a row range like 5:5000, :5 or -100:"),
        ("run --columns a,b", "--columns is 'a,b': it must be ROLE=COLUMN,ROLE=COLUMN,…"),
        ("run --columns 'input=a, b'", "(a column with a comma in its name: --set 'data.columns={input: \"a, b\"}')"),
        ("run --columns user=a", "--columns has 'user': the roles are system, instruction"),
        ("run --name Foo", "--name is 'Foo': it must be lower-case letters"),
        ("run --processes 0", "Invalid value for '-p' / '--processes': 0 is not in the range"),
        ("run --set train.maxStep=8", "--set train.maxStep=8: unknown field train.maxStep: did you mean maxSteps?"),
        (
            "run --set train.maxSteps=a",
            "--set train.maxSteps=a: train.maxSteps is 'a': it must be a whole number or null",
        ),
        ("run --set train.maxSteps=0", "--set train.maxSteps=0: train.maxSteps is 0: it must be at least 1, or null"),
        ("run --set train.maxSteps", "--set train.maxSteps: it must be FIELD=VALUE, like train.maxSteps=8"),
        ("run --set train..x=1", "--set train..x=1: 'train..x' is not the name of a field"),
        ("run --set lora.targets=[q_proj", "--set lora.targets=[q_proj: '[q_proj' is not a YAML value"),
        ("run -f nowhere.yaml", "nowhere.yaml does not exist"),
        ("run --learnin-rate 4", "No such option '--learnin-rate'. Did you mean '--learning-rate'?"),
        ("rnu", "No such command 'rnu'. Did you mean 'run'?"),
        ("data chekc", "No such command 'chekc'. Did you mean 'check'?"),
        ("frobnicate", "No such command 'frobnicate'."),
        ("models -o xml", "'xml' is not one of 'table', 'json', 'yaml', 'name'"),
        ("completion tcsh", "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_a_wrong_command_line_says_in_one_line_what_is_wrong(lorajob: Call, arguments: str, said: str) -> None:
    outcome = lorajob(*shlex.split(arguments))

    lines = [line for line in outcome.err.splitlines() if not line.startswith("hint: ")]
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(lines) == 1
    assert lines[0].startswith("lorajob: error: ")
    assert said in lines[0]


@pytest.mark.parametrize("field", ["queue", "priority", "timeout", "gpu-type", "cpu", "memory", "retries", "nodes"])
def test_what_only_a_cluster_understands_is_no_flag_here(lorajob: Call, field: str) -> None:
    assert lorajob("run", f"--{field}", "1").code == 2


def test_what_only_a_cluster_understands_may_stand_in_the_file(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "lorajob.yaml").write_text("resources: {queue: night, timeout: 24h, nodes: 2, gpuType: h100}\n")

    assert lorajob("run", "--dry-run").code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {epochs: 1\n", "spec.yaml:2: "),
        ("train:\n\tepochs: 1\n", "spec.yaml:2: a tab: YAML is indented with spaces"),
        ("train:\n  epochs: 1\n  epochs: 2\n", 'spec.yaml:3: found duplicate key "epochs"'),
        ("- train\n", "spec.yaml:1: a spec is a mapping of fields, like `train: {epochs: 3}`, not a list"),
        ("just words\n", "not the text 'just words'"),
        ("train:\n  epochs: 1\n  maxStep: 2\n", "spec.yaml:3: unknown field train.maxStep: did you mean maxSteps?"),
        ("train:\n  epochs: many\n", "spec.yaml:2: train.epochs is 'many': it must be a number"),
        ("lora:\n  rank: 0\n", "spec.yaml:2: lora.rank is 0: it must be from 1 to 1024"),
        ("apiVersion: lorajob.dev/v2\n", "spec.yaml:1: apiVersion is 'lorajob.dev/v2': this version of lorajob reads"),
        ("data: &d {rows: ':5'}\nlora: *d\n", "spec.yaml:2: *d is an alias: write the value out"),
        ("[" * 50 + "]" * 50, "spec.yaml:1: nested deeper than 20 levels"),
        ("name: !!python/object/apply:os.system [ls]\n", "spec.yaml:1: "),
        ("name: 'a\x00b'\n", "spec.yaml is not YAML"),
        ("a: 1\n---\nb: 2\n", "spec.yaml:"),
    ],
)
def test_a_faulty_spec_file_is_named_with_its_line(lorajob: Call, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)

    outcome = lorajob("run", "-f", "spec.yaml", "--dry-run")

    assert outcome.code == 2
    assert said in outcome.err.splitlines()[0]
    assert "Traceback" not in outcome.err


def test_a_spec_file_that_is_no_text_or_no_file_is_refused(lorajob: Call, tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "big.yaml").write_text("#" * (1 << 20) + "\n")
    (tmp_path / "folder.yaml").mkdir()

    for name, said in (("binary", "is not UTF-8"), ("big", "more than 1 MiB"), ("folder", "can't be read")):
        outcome = lorajob("run", "-f", f"{name}.yaml", "--dry-run")
        assert outcome.code == 2
        assert said in outcome.err


def test_an_error_of_a_class_ends_with_its_code_and_hint(lorajob: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("the bucket is gone")

    monkeypatch.setattr(entry.cli, "main", fail)

    outcome = lorajob("models")

    assert outcome.code == 21
    assert outcome.err.splitlines()[0] == "lorajob: error: the bucket is gone"
    assert outcome.err.splitlines()[1].startswith(f"hint: {STORAGE.hint}")


def test_an_unforeseen_error_is_one_line_and_debug_shows_where(lorajob: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(entry.cli, "main", fail)

    outcome = lorajob("models")

    assert outcome.code == 1
    assert outcome.err.splitlines()[0] == "lorajob: error: unexpected KeyError: 'surprise'"
    with pytest.raises(KeyError):
        entry.main(["--debug", "models"])


def test_ctrl_c_ends_with_130_and_no_traceback(lorajob: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry.cli, "invoke", interrupt)

    assert lorajob("models").code == 130


def test_a_reader_that_went_away_is_no_error() -> None:
    program = [sys.executable, "-m", "lorajob", "run", "--help"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()

    assert said == b""
    assert process.returncode in (0, 141)


def test_errors_have_no_colour_codes_where_there_is_no_terminal(lorajob: Call) -> None:
    assert "\x1b" not in lorajob("run", "--scheduler", "fast").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "-n", "a/b"), "--namespace is 'a/b': it must be lower-case letters, digits and -"),
        (("submit", "-n", "Team"), "--namespace is 'Team': it must be lower-case letters, digits and -"),
        (("logs", ".."), "'..' is not the name of a run: it must be lower-case letters, digits and -"),
        (("status", "a/b"), "'a/b' is not the name of a run: it must be lower-case letters, digits and -"),
        (
            ("cancel", "Second", "a/b"),
            "'Second' is not the name of a run: it must be lower-case letters, digits and -",
        ),
    ],
)
def test_a_name_that_nothing_in_a_cluster_can_have_is_refused_before_it_is_asked(
    lorajob: Call, arguments: tuple[str, ...], said: str
) -> None:
    outcome = lorajob(*arguments)

    assert outcome.code == 2
    assert outcome.err.splitlines()[0].startswith(f"lorajob: error: {said}")
