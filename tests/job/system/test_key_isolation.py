"""Who gets which keys, and what no process that may run a repository's code can get at."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorajob_runtime.fetch import process
from lorajob_runtime.report.swanlab.sink import SWANLAB
from lorajob_runtime.system import environment, key_isolation

KEYS = {
    "AWS_ACCESS_KEY_ID": "of storage",
    "AWS_SECRET_ACCESS_KEY": "of storage",
    "AWS_SESSION_TOKEN": "of storage",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "of storage",
    "AWS_ROLE_ARN": "of storage",
    "AWS_PROFILE": "of storage",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "of storage",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "of storage",
    "AWS_BEARER_TOKEN_BEDROCK": "of storage",
    "HF_TOKEN": "of hf",
    "HF_TOKEN_PATH": "of hf",
    "HUGGING_FACE_HUB_TOKEN": "of hf",
    "MODELSCOPE_API_TOKEN": "of modelscope",
    "MODELSCOPE_CREDENTIALS_PATH": "of modelscope",
    "SWANLAB_API_KEY": "of swanlab",
    "SWANLAB_WEBHOOK": "of swanlab",
    "AZURE_CLIENT_SECRET": "nobody's",
    "AZURE_FEDERATED_TOKEN_FILE": "nobody's",
    "GOOGLE_APPLICATION_CREDENTIALS": "nobody's",
    "CLOUDSDK_AUTH_ACCESS_TOKEN": "nobody's",
    "WANDB_API_KEY": "nobody's",
    "OPENAI_API_KEY": "nobody's",
    "GITHUB_TOKEN": "nobody's",
    "DATABASE_URL": "nobody's",
    "our-own": "nobody's",
    "PYTORCH_TOKEN": "nobody's",
    "TRANSFORMERS_SECRET": "nobody's",
    "NVIDIA_API_KEY": "nobody's",
    "NCCL_PASSWORD": "nobody's",
    "LORAJOB_LINK_TOKEN": "nobody's",
    "KUBECONFIG": "nobody's",
    "SSH_AUTH_SOCK": "nobody's",
}

NEEDED = """
PATH HOME USER LANG LC_ALL TZ TMPDIR XDG_CACHE_HOME LD_LIBRARY_PATH LD_PRELOAD SSL_CERT_FILE REQUESTS_CA_BUNDLE
CUDA_VISIBLE_DEVICES CUDA_HOME CUDA_LAUNCH_BLOCKING CUBLAS_WORKSPACE_CONFIG NVIDIA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES
NCCL_DEBUG NCCL_SOCKET_IFNAME NCCL_IB_HCA GLOO_SOCKET_IFNAME UCX_TLS FI_PROVIDER TORCH_NCCL_BLOCKING_WAIT TORCH_LOGS
PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR OMP_NUM_THREADS OMP_WAIT_POLICY
GOMP_SPINCOUNT KMP_AFFINITY MKL_NUM_THREADS MALLOC_ARENA_MAX GLIBC_TUNABLES TOKENIZERS_PARALLELISM RAYON_NUM_THREADS
PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONHASHSEED VIRTUAL_ENV HF_HOME HF_MODULES_CACHE HF_HUB_OFFLINE
TRANSFORMERS_OFFLINE MODELSCOPE_CACHE BNB_CUDA_VERSION
""".split()  # noqa: SIM905 shorter than a list of strings


@pytest.mark.parametrize("name", NEEDED)
def test_what_the_libraries_of_training_read_reaches_them(name: str) -> None:
    assert environment.for_training({name: "set"}) == {name: "set"}


@pytest.mark.parametrize("name", sorted(KEYS))
def test_no_key_reaches_a_process_that_may_run_code_of_a_repository(name: str) -> None:
    assert environment.for_training({name: "x", "HOME": "/h"}) == {"HOME": "/h"}


@pytest.mark.parametrize("kind", ["hf", "modelscope", "package"])
def test_a_hub_s_client_gets_its_hub_s_keys_and_no_others(kind: str) -> None:
    assert set(environment.for_hub(kind, KEYS)) == {name for name, owner in KEYS.items() if owner == f"of {kind}"}


def test_who_fetches_a_model_from_s3_gets_the_keys_of_storage() -> None:
    given = set(environment.for_hub("s3", KEYS))

    assert given == {name for name, owner in KEYS.items() if owner == "of storage"}


def test_swanlab_gets_its_own_key_and_no_others() -> None:
    assert set(environment.for_report(SWANLAB.variables, KEYS)) == {
        name for name, owner in KEYS.items() if owner == "of swanlab"
    }


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "no_proxy", "ALL_PROXY"])
def test_a_proxy_is_for_those_who_speak_to_the_world(name: str) -> None:
    given = {name: "http://me:password@proxy:3128"}

    assert environment.for_training(given) == {}
    assert environment.for_hub("hf", given) == environment.for_report(SWANLAB.variables, given) == given


def test_keys_are_put_away_while_code_of_a_repository_runs_in_this_process() -> None:
    variables = {"HF_TOKEN": "x", "HOME": "/h"}

    with environment.keys_put_away(variables):
        assert variables == {"HOME": "/h"}

    assert variables == {"HF_TOKEN": "x", "HOME": "/h"}


READ = """
import os, sys
for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            sys.stdout.write(file.read().decode(errors="replace") + "\\n")
    except OSError as error:
        sys.stdout.write(f"{error.strerror}\\n")
"""


def give_up_privileges() -> None:
    """Has the program that this process becomes be one of a user without root's rights over other processes."""
    drop_from_bounding_set = 24
    for capability in range(64):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def read(*paths: Path | str, hidden: tuple[Path, ...] = ()) -> list[str]:
    """What a process gets to see of files, each in a line."""
    command = key_isolation.confined([sys.executable, "-S", "-c", READ, *map(str, paths)], hidden)
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=give_up_privileges)
    return done.stdout.splitlines()


@pytest.fixture
def sleeper() -> Iterator[Any]:
    """`sleeper(statements)`: a process that has run them with a key in its environment, and waits."""
    started: list[subprocess.Popen[str]] = []

    def start(statements: str) -> subprocess.Popen[str]:
        program = f"import sys\n{statements}\nprint('ready', flush=True)\nsys.stdin.read()"
        package = str(Path(key_isolation.__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", program],
            env={"MY_KEY": "hidden-value", "PYTHONPATH": package},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=give_up_privileges,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for each in started:
        each.communicate()


def test_a_private_process_shows_its_environment_and_memory_to_no_other_of_its_user(sleeper: Any) -> None:
    plain = sleeper("")
    ours = sleeper("from lorajob_runtime.system import key_isolation; key_isolation.keep_private()")

    assert "hidden-value" in read(f"/proc/{plain.pid}/environ")[0]
    for file in ("environ", "mem", "maps", "auxv"):
        assert read(f"/proc/{ours.pid}/{file}") == ["Permission denied"], file


def test_a_key_that_is_taken_over_a_pipe_stands_in_no_file_of_proc(sleeper: Any) -> None:
    taken = "from lorajob_runtime.system import key_isolation; key_isolation.take({'OTHER': 'taken-value'})\nimport os"
    process = sleeper(f"{taken}\nassert os.environ['OTHER'] == 'taken-value'")

    assert "taken-value" not in Path(f"/proc/{process.pid}/environ").read_text()


def test_a_process_with_keys_has_them_and_its_own_file_in_proc_has_not() -> None:
    program = """
import os
from lorajob_runtime.system import key_isolation
key_isolation.wipe_environment(kept=["PATH"])
print(os.environ["MY_KEY"], os.popen("echo $MY_KEY $PATH").read().strip())
print(open("/proc/self/environ").read().replace(chr(0), " "))
"""
    package = str(Path(key_isolation.__file__).parents[2])
    variables = {"MY_KEY": "hidden-value", "PATH": "/bin", "PYTHONPATH": package, "EMPTY": ""}

    done = subprocess.run([sys.executable, "-S", "-c", program], env=variables, capture_output=True, text=True)

    first, second = done.stdout.splitlines()
    assert first == "hidden-value hidden-value /bin", done.stderr
    assert second.split() == ["PATH=/bin"]


needs_landlock = pytest.mark.skipif(not key_isolation.can_confine(), reason="this kernel has no Landlock")


@needs_landlock
def test_a_confined_process_opens_no_hidden_file_by_whatever_path(tmp_path: Path) -> None:
    hidden, beside = tmp_path / "run/secrets", tmp_path / "run/other"
    hidden.mkdir(parents=True)
    (hidden / "token").write_text("hidden-value")
    beside.write_text("seen")
    link = tmp_path / "link"
    link.symlink_to(hidden / "token")
    paths = (hidden / "token", link, f"/proc/self/root{hidden}/token", beside, "/dev/null")

    seen = read(*paths, hidden=(hidden,))

    assert seen == ["Permission denied"] * 3 + ["seen", ""]
    assert read(hidden / "token") == ["hidden-value"]


@needs_landlock
def test_a_confined_process_gives_no_hidden_file_another_name(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/token").write_text("hidden-value")
    link = [sys.executable, "-S", "-c", "import os, sys; os.link(*sys.argv[1:])"]
    names = [str(tmp_path / "secrets/token"), str(tmp_path / "log")]

    confined = key_isolation.confined([*link, *names], [tmp_path / "secrets"])

    assert "Invalid cross-device link" in subprocess.run(confined, capture_output=True, text=True).stderr
    assert not (tmp_path / "log").exists()


@needs_landlock
def test_a_confined_process_looks_into_none_that_is_not_confined_with_it(sleeper: Any, tmp_path: Path) -> None:
    plain = sleeper("")

    assert read(f"/proc/{plain.pid}/environ", hidden=(tmp_path,)) == ["Permission denied"]


@needs_landlock
def test_files_may_come_and_go_elsewhere_while_a_process_is_confined(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    program = f"import pathlib; p = pathlib.Path({str(work)!r}) / 'new'; p.write_text('x'); print(p.read_text())"

    done = subprocess.run(
        key_isolation.confined([sys.executable, "-c", program], [hidden]), capture_output=True, text=True
    )

    assert (done.stdout, done.returncode) == ("x\n", 0), done.stderr


def test_in_a_pod_the_files_with_keys_are_hidden_and_on_a_machine_of_ones_own_none(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    variables = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "GOOGLE_APPLICATION_CREDENTIALS": "/not/there"}
    variables |= {"AWS_CONFIG_FILE": "/dev/null"}

    assert environment.hidden_files(variables) == []
    hidden = set(environment.hidden_files(variables | {"LORAJOB_JOB": "zhenhuan"}))
    assert token in hidden
    assert hidden <= {token, Path("/var/run/secrets")}


def test_a_file_with_keys_that_cannot_be_looked_at_keeps_no_run_from_starting() -> None:
    cannot_be = "/" + "x" * 300
    variables = {"LORAJOB_JOB": "zhenhuan", "AWS_SHARED_CREDENTIALS_FILE": cannot_be}

    assert Path(cannot_be) not in environment.hidden_files(variables)


@needs_landlock
def test_what_lies_in_a_folder_that_cannot_be_listed_is_hidden_with_it(tmp_path: Path) -> None:
    unlisted, beside = tmp_path / "unlisted", tmp_path / "beside"
    unlisted.write_text("not a folder")
    beside.write_text("seen")

    assert read(unlisted, beside, hidden=(unlisted / "token",)) == ["Permission denied", "seen"]


class Seen(Exception):  # noqa: N818
    """The test has seen enough."""


def test_the_client_of_a_hub_starts_without_keys_and_is_given_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "hidden-value")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        request = {"action": "list", "source": {"kind": "hf", "id": "acme/chat", "revision": "main"}}

        def look() -> None:
            silent.settimeout(30)
            # that it comes here it knows from a variable that it was given
            silent.accept()
            assert "hidden-value" not in str([path.read_bytes() for path in _environments_of_children()])
            raise Seen

        with pytest.raises(Seen), process.answers(request, tick=look) as answers:
            next(answers)


def _environments_of_children() -> list[Path]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert children
    paths = [Path(f"/proc/{child}/environ") for child in children]
    return [path for path in paths if os.access(path, os.R_OK)]
