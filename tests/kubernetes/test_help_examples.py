"""The examples in the help of every command on a cluster, each typed as it stands, against a real API server."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from made_runs import NOWHERE, PLATFORM, MadeRuns, now

from calling import Outcome
from cluster_fixtures import TestCluster
from lorajob.cluster import Cluster, NotFound, connect
from lorajob.errors import FAILED
from lorajob.main import cli
from lorajob.options.command import Command
from lorajob.platform import platform_parsing
from lorajob.platform.platform_config import PlatformScheduling, PlatformStorage
from lorajob.submit import manifest
from lorajob_runtime.contract import layout
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import OUT_OF_MEMORY, SUCCEEDED
from lorajob_runtime.contract.kubernetes import RUN_LABEL
from lorajob_runtime.contract.spec import RunSpec
from s3_servers import S3Server
from waiting import wait_until

ENDS = {"Succeeded": SUCCEEDED.code, "Failed": FAILED.code}
"""Phase at the end of a run -> exit code of a command that tells how it ended."""

FILES = {
    "huanhuan.json": json.dumps([{"instruction": "Who are you?", "input": "", "output": "Zhen Huan."}] * 20),
    "lorajob.yaml": "name: zhenhuan\nmodel: {name: qwen3-8b}\nresources: {gpus: 2}\n",
}
"""Name -> content of every file that an example reads."""

PRINTS = """
print("phase train")
for rank in range(4):
    print(f"[rank {rank}] step 1")
"""


@dataclass(frozen=True)
class Example:
    """A line of a command's help. `end`: how the runs end that it follows, or have ended that it looks at."""

    command: click.Command
    words: tuple[str, ...]
    text: str
    end: str = "Succeeded"

    def __str__(self) -> str:
        return f"{self.text} ({self.end})"

    @property
    def arguments(self) -> list[str]:
        """What the shell gives the command."""
        shown, _, _ = self.text.partition(" > ")
        return shlex.split(shown)[1 + len(self.words) :]

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs that it names: no other argument is taken by a command on a cluster."""
        params = self.command.make_context(self.words[-1], self.arguments).params
        named: list[str] = []
        for argument in self.command.params:
            if isinstance(argument, click.Argument):
                assert argument.name in ("name", "names")
                value = params[argument.name]
                named += [value] if isinstance(value, str) else value
        return tuple(named)

    @property
    def waits(self) -> bool:
        """Whether it goes on until its runs have ended."""
        return self.words[-1] in ("watch", "wait") or bool({"--watch", "--wait"} & {*self.arguments})

    @property
    def tells_the_end(self) -> bool:
        """Whether its exit code depends on how its runs ended."""
        return self.waits or "--exit-code" in self.arguments


def commands(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every command that can be told which cluster, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)
        elif any(parameter.name == "kubeconfig" for parameter in getattr(command, "params", ())):
            assert isinstance(command, Command)
            yield (*words, name), command


def examples_of(words: tuple[str, ...], command: Command) -> Iterator[Example]:
    """Every example of a command; those whose exit code tells the end of a run for both ends."""
    for text in command.examples:
        for end in ENDS:
            example = Example(command, words, text, end)
            if end == "Succeeded" or example.tells_the_end:
                yield example


class StoredRuns(MadeRuns):
    """Runs of a platform whose storage is there, and whose pods find no node."""

    def __init__(self, client: Cluster, s3: S3Server) -> None:
        super().__init__(client)
        self.s3 = s3
        self.bucket = s3.make_bucket()
        self.platform = dataclasses.replace(
            PLATFORM,
            storage=PlatformStorage(uri=f"s3://{self.bucket}/lora", endpoint=s3.endpoint, addressing="path"),
            scheduling=PlatformScheduling(node_selector=NOWHERE),
        )

    def built(self, spec: RunSpec) -> manifest.Manifests:
        return manifest.build(spec, self.platform, namespace=self.client.namespace, version="0.1.0")

    def install(self) -> None:
        """What the chart brings: the platform's config, and the Secret with the key of its storage."""
        text = json.dumps(platform_parsing.to_dict(self.platform))
        keys = {"AWS_ACCESS_KEY_ID": self.s3.access_key, "AWS_SECRET_ACCESS_KEY": self.s3.secret_key}
        config = {"kind": "ConfigMap", "metadata": {"name": "lorajob-platform"}, "data": {"platform.yaml": text}}
        secret = {"kind": "Secret", "metadata": {"name": "lorajob-storage"}, "stringData": keys}
        self.client.post(self.client.config_maps(), {"apiVersion": "v1", **config})
        self.client.post(self.client.secrets(), {"apiVersion": "v1", **secret})

    def clear(self) -> None:
        """Removes every run."""
        for path in (self.client.services, self.client.config_maps, self.client.jobs):
            for each in list(self.client.pages(path(), labelSelector=RUN_LABEL)):
                self.client.delete(path(each["metadata"]["name"]), propagation="Background")

    def state(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.client.get(self.client.jobs(name)).get("status") or {}
        return status

    def store_logs(self, name: str) -> None:
        """What two attempts leave of their logs in storage."""
        for attempt in (1, 2):
            key = f"lora/{name}/{layout.LOGS}/attempt-{attempt}/supervisor.log.gz"
            body = gzip.compress(f"attempt {attempt}\n".encode())
            self.s3.client().put_object(Bucket=self.bucket, Key=key, Body=body)

    def end_pods(self, end: str) -> None:
        """Ends every pod that waits for a node, so that its run comes to that end."""
        code = 0 if end == "Succeeded" else OUT_OF_MEMORY.code
        for each in self.client.pages(self.client.pods(), fieldSelector="status.phase=Pending"):
            state = {"terminated": {"exitCode": code, "startedAt": now(), "finishedAt": now()}}
            # one of an earlier example may just go
            with contextlib.suppress(NotFound):
                self.set_pod(each["metadata"]["name"], state, end)


class Desk:
    """A home with a kubeconfig, and `lorajob` on PATH: all that a person has who types an example."""

    def __init__(self, home: Path, kubeconfig: dict[str, Any]) -> None:
        self.home = home
        self.programs = home / "bin"
        self.programs.mkdir(parents=True)
        (home / "kubeconfig").write_text(json.dumps(kubeconfig))
        program = self.programs / "lorajob"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lorajob "$@"\n')
        program.chmod(0o755)

    @property
    def variables(self) -> dict[str, str]:
        without = ("AWS_", "LORAJOB_", "KUBE", "SWANLAB_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(without)}
        return kept | {
            "KUBECONFIG": str(self.home / "kubeconfig"),
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def types(self, line: str, folder: Path, *, meanwhile: Callable[[], object] | None) -> Outcome:
        """Runs a line in bash, with `y` as the answer to what it asks; `meanwhile` is called until it ends.

        That begins once it has shown something, for `wait` at once: it says nothing before the end.
        """
        out, err = self.home / "out", self.home / "err"
        keyboard, terminal = os.openpty()
        os.write(keyboard, b"y\n")
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                ["bash", "-c", line],
                cwd=folder,
                env=self.variables,
                stdin=terminal,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
        os.close(terminal)

        def has_ended() -> bool:
            shown = (out, err, *folder.glob("*.jsonl"))
            if meanwhile is not None and (" wait " in line or any(each.stat().st_size for each in shown)):
                meanwhile()
            return process.poll() is not None

        try:
            wait_until(has_ended, seconds=60, what=f"the end of `{line}`")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            os.close(keyboard)
        return Outcome(code=process.returncode, out=out.read_text(), err=err.read_text())


@pytest.fixture
def made(cluster: TestCluster, namespace: str, s3_server: S3Server) -> Iterator[StoredRuns]:
    """Makes runs in the test's own namespace, where the platform is installed."""
    with connect(str(cluster.kubeconfig), namespace=namespace) as client:
        runs = StoredRuns(client, s3_server)
        runs.install()
        yield runs


@pytest.fixture
def desk(cluster: TestCluster, namespace: str, tmp_path: Path) -> Desk:
    """That of a person whose kubeconfig leads to the test's own namespace."""
    config = json.loads(cluster.run_kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    config["contexts"][0]["context"]["namespace"] = namespace
    return Desk(tmp_path / "home", config)


# The state in which runs are when someone types an example


def nothing(made: StoredRuns, name: str, example: Example) -> None:
    pass


def training(made: StoredRuns, name: str, example: Example) -> None:
    made.run(name)
    made.start(name)
    made.report(name, f"{name}-0-abcde", step=8, total_steps=20)


def suspended(made: StoredRuns, name: str, example: Example) -> None:
    made.run(name, suspend=True)


def failed(made: StoredRuns, name: str, example: Example) -> None:
    made.run(name)
    made.fail(name, "BackoffLimitExceeded", "Job has reached the specified backoff limit")


def ended(made: StoredRuns, name: str, example: Example) -> None:
    if example.end == "Failed":
        failed(made, name, example)
    else:
        made.run(name)
        made.succeed(name)


def going_on(made: StoredRuns, name: str, example: Example) -> None:
    """A run of the Job controller, with logs of earlier attempts; its pod waits for a node, so the test can end it."""
    made.store_logs(name)
    made.live(name, pod={"nodeSelector": NOWHERE})
    wait_until(lambda: made.state(name).get("active"), what=f"the pod of {name}")


def printing(made: StoredRuns, name: str, example: Example, image: str) -> None:
    """A third attempt, whose pod prints what four training processes would, and ends."""
    made.store_logs(name)
    job = made.built(specs.parse({"name": name, "resources": {"gpus": 4}})).job
    template = job["spec"]["template"]["spec"]
    [container] = template["containers"]
    for key in ("env", "envFrom", "resources", "volumeMounts", "args"):
        container.pop(key, None)
    container |= {"image": image, "command": ["python", "-u", "-c", PRINTS], "imagePullPolicy": "Never"}
    template |= {"volumes": [], "nodeSelector": {}, "automountServiceAccountToken": False}
    made.client.post(made.client.jobs(), job)
    if "-f" not in example.arguments:
        wait_until(lambda: made.state(name).get("succeeded"), seconds=60, what=f"the end of {name}")


STATES: dict[str, Callable[..., None]] = {
    "submit": nothing,
    "plan": nothing,
    "list": training,
    "status": ended,
    "watch": going_on,
    "logs": printing,
    "wait": going_on,
    "cancel": going_on,
    "suspend": going_on,
    "resume": suspended,
    "retry": failed,
    "delete": going_on,
    "platform show": nothing,
    "version": nothing,
}
"""Command -> the state of the runs that its examples name."""


# The examples


def test_every_command_on_a_cluster_has_examples_and_a_state_of_its_runs() -> None:
    found = {" ".join(words): command.examples for words, command in commands(cli)}

    assert set(found) == set(STATES)
    assert all(found.values())


@pytest.mark.parametrize("name", [" ".join(words) for words, _ in commands(cli)])
def test_the_examples_of_a_command_do_what_they_say(
    desk: Desk, made: StoredRuns, tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    words, command = next((words, command) for words, command in commands(cli) if " ".join(words) == name)
    prepare = STATES[name]
    if prepare is printing:
        prepare = functools.partial(printing, image=request.getfixturevalue("image"))
    for number, example in enumerate(examples_of(words, command)):
        made.clear()
        for run in example.runs or ("zhenhuan",):
            prepare(made, run, example)
        folder = tmp_path / str(number)
        folder.mkdir()
        for file, content in FILES.items():
            if file in example.text:
                (folder / file).write_text(content)
        # a namespace of a fixed name would be shared with whoever uses the cluster too
        line = example.text.replace("-n team", f"-n {made.client.namespace}")

        outcome = desk.types(
            line, folder, meanwhile=functools.partial(made.end_pods, example.end) if example.waits else None
        )

        check(example, outcome, folder)


def check(example: Example, outcome: Outcome, folder: Path) -> None:
    """That an example came to its end, with the exit code that it should have and something to read."""
    said = f"{example}: exit code {outcome.code}\n{outcome.out}{outcome.err}"
    assert outcome.code == (ENDS[example.end] if example.tells_the_end else 0), said
    assert "lorajob: error:" not in outcome.err, said
    assert "Traceback" not in outcome.err, said
    out = outcome.out
    if redirected := re.search(r" > (\S+)$", example.text):
        assert out == "", said
        out = (folder / redirected[1]).read_text()
    assert out.strip(), said
    if example.words == ("watch",):
        assert "Pending" in out, f"it shows nothing before the end: {said}"
    if "json" in example.arguments:
        # of watch it is one object a line
        assert all(map(json.loads, out.splitlines() if example.words == ("watch",) else [out])), said
