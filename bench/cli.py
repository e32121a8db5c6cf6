"""What the command line costs beside its peers: taking turns in one run, on one cluster, with the same objects.

    python bench/cli.py --kubeconfig "$(PYTHONPATH=tests python -m cluster up --api-only)"

Prints Markdown tables: `lorajob --help` beside `python -c pass`, `submit` beside `kubectl create -f` of the manifests
that it sends, `list` beside `kubectl get jobs` over the same runs, and what a list costs in other ways. No pod is
started: the runs wait for a queue that nobody serves. Ends with 1 when a ratio or the memory is over its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorajob.cluster import Cluster, connect
from lorajob.platform import platform_lookup, platform_parsing
from lorajob.spec import spec_file
from lorajob.submit import manifest
from lorajob_runtime import __version__
from lorajob_runtime.contract import spec

MEBIBYTE = 2**20
LIST_MEMORY_BYTES = 150 * 10**6

PLATFORM = {
    "image": "registry.example/lorajob:0.1.0",
    "storage": {"uri": "s3://bench/lora"},
    "cache": {"claim": "cache"},
}
ROWS = [{"instruction": f"Who lit lamp {number}?", "output": "The keeper of the lighthouse."} for number in range(50)]

CLIENTS = {
    "`kubernetes`, typed": """
from kubernetes import client, config
config.load_kube_config(path)
jobs = client.BatchV1Api()
began = time.perf_counter()
count = len(jobs.list_namespaced_job(namespace, label_selector=selector).items)
""",
    "`kubernetes`, raw JSON": """
from kubernetes import client, config
config.load_kube_config(path)
jobs = client.BatchV1Api()
began = time.perf_counter()
answer = jobs.list_namespaced_job(namespace, label_selector=selector, _preload_content=False)
count = len(json.loads(answer.data)["items"])
""",
    "lorajob, one answer": """
from lorajob.cluster import connect
cluster = connect(path, namespace=namespace)
began = time.perf_counter()
count = len(cluster.get(cluster.jobs(), labelSelector=selector)["items"])
""",
    "lorajob, pages of 500": """
from lorajob.cluster import connect
cluster = connect(path, namespace=namespace)
began = time.perf_counter()
count = sum(1 for _ in cluster.pages(cluster.jobs(), labelSelector=selector))
""",
}
"""How a list may be read; `jobs` and the clock begin after the imports."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two commands that took turns. `bar` is the highest ratio that is good enough."""

    name: str
    peer: str
    bar: float
    ours: list[float]
    """Seconds from start to end of the process, in each round."""
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: a busy moment hits both sides of its round."""
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))


def measure(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds that one command takes to its end; what it prints goes nowhere."""
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()}")
    return seconds


def memory_bytes(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """The most memory that a call of `lorajob` holds."""
    # what wait4 tells holds the memory of the process that forked, too
    body = "import sys; from lorajob.__main__ import main; main(sys.argv[1:]); "
    command = [sys.executable, "-c", body + "sys.stderr.write(open('/proc/self/status').read())", *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, check=True)
    return high_water(done.stderr.decode())


def high_water(status: str) -> int:
    """The most memory in bytes that /proc/…/status tells."""
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def take_turns(
    name: str,
    peer: str,
    bar: float,
    commands: Iterator[tuple[Sequence[str], Sequence[str]]],
    environment: Mapping[str, str],
    rounds: int,
) -> Compared:
    """Runs pairs of commands, ours and theirs; the first pair warms caches up and is not counted."""
    pairs = []
    for _ in range(rounds + 1):
        ours, theirs = next(commands)
        pairs.append((measure(ours, environment), measure(theirs, environment)))
    compared = Compared(name=name, peer=peer, bar=bar, ours=[a for a, _ in pairs[1:]], theirs=[b for _, b in pairs[1:]])
    print(f"{name}: {compared.ratio:.2f}x of {peer}", flush=True)
    return compared


@contextmanager
def place(kubeconfig: str) -> Iterator[Cluster]:
    """A namespace of our own with the platform's config, removed in the end with all that is in it."""
    name = f"lorajob-bench-{secrets.token_hex(3)}"
    with connect(kubeconfig, namespace=name, timeout_seconds=120) as cluster:
        cluster.post("/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            text = spec_file.dumps(platform_parsing.to_dict(platform_parsing.parse(PLATFORM, "the bench")))
            config = {"metadata": {"name": platform_lookup.CONFIG_MAP}, "data": {platform_lookup.CONFIG_KEY: text}}
            cluster.post(cluster.config_maps(), config)
            yield cluster
        finally:
            # without controllers, as in the mode for scale, a namespace does not take what is in it along
            for collection in (cluster.jobs(), cluster.config_maps()):
                cluster.delete(collection, propagation="Background")
            cluster.delete(f"/api/v1/namespaces/{name}")


def job(name: str, namespace: str) -> manifest.Manifests:
    """What a submit of a typical spec makes."""
    run = spec.parse(
        {
            "name": name,
            "model": {"name": "qwen3-8b"},
            "data": {"source": "s3://bench/data/huanhuan.json", "system": "You are Zhen Huan.", "rows": "5:5000"},
            "lora": {"rank": 8, "alpha": 32},
            "train": {"epochs": 3, "learningRate": 1e-4, "gradientAccumulation": 4},
            "resources": {"queue": "bench", "gpus": 4},
        }
    )
    config = platform_parsing.parse(PLATFORM, "the bench")
    return manifest.build(run, config, namespace=namespace, version=__version__)


def fill(cluster: Cluster, count: int) -> None:
    """Makes so many runs."""
    with ThreadPoolExecutor(8) as pool:
        names = (f"run-{number:05}" for number in range(count))
        list(pool.map(lambda name: cluster.post(cluster.jobs(), job(name, cluster.namespace).job), names))


def submits(
    lorajob: str, kubectl: str, where: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[list[str], list[str]]]:
    """Commands that submit a run, each under a name of its own, beside the creation of the same objects."""
    data = folder / "data.json"
    data.write_text(json.dumps(ROWS))
    number = 0
    while True:
        number += 1
        ours = [lorajob, "submit", "--yes", "-m", "qwen3-8b", "-d", str(data), "--set", "resources.queue=bench", *where]
        shown = subprocess.run(
            [*ours, "--name", f"peer-{number}", "--dry-run=client", "-o", "yaml"],
            check=True,
            capture_output=True,
            env=environment,
        )
        manifests = folder / f"{number}.yaml"
        manifests.write_bytes(shown.stdout)
        yield [*ours, "--name", f"ours-{number}"], [kubectl, "create", "-f", str(manifests), *where]


def forever(ours: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    while True:
        yield ours, theirs


def clients(kubeconfig: str, namespace: str, environment: Mapping[str, str], rounds: int) -> list[str]:
    """A table of ways to read the list, each in a process of its own, taking turns."""
    head = "import json, sys, time\npath, namespace, selector = sys.argv[1:]\n"
    tail = "print(json.dumps([count, time.perf_counter() - began, open('/proc/self/status').read()]))"
    times: dict[str, list[float]] = {name: [] for name in CLIENTS}
    whole: dict[str, list[float]] = {name: [] for name in CLIENTS}
    memory: dict[str, int] = {}
    for _ in range(rounds):
        for name, body in CLIENTS.items():
            command = [sys.executable, "-c", head + body + tail, kubeconfig, namespace, "lorajob.dev/run"]
            began = time.perf_counter()
            done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
            whole[name].append(time.perf_counter() - began)
            _, seconds, status = json.loads(done.stdout)
            times[name].append(seconds)
            memory[name] = high_water(status)
    lines = ["| list of runs by | list ms | process ms | peak memory MiB |", "|---|---|---|---|"]
    for name in CLIENTS:
        lines.append(
            f"| {name} | {1000 * statistics.median(times[name]):.0f} | {1000 * statistics.median(whole[name]):.0f} "
            f"| {memory[name] / MEBIBYTE:.0f} |"
        )
    return lines


def table(comparisons: Sequence[Compared]) -> list[str]:
    """The Markdown table; times are medians over the rounds."""
    lines = ["| | ms | peer | ms | ratio | bar |", "|---|---|---|---|---|---|"]
    for each in comparisons:
        ours, theirs = (1000 * statistics.median(side) for side in (each.ours, each.theirs))
        lines.append(
            f"| `{each.name}` | {ours:.0f} | `{each.peer}` | {theirs:.0f} | {each.ratio:.2f}x | {each.bar:g}x |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig", default=os.environ.get("LORAJOB_TEST_KUBECONFIG"), help="of the cluster")
    parser.add_argument("--kubectl", default=None, help="default: beside the kubeconfig, or on PATH")
    parser.add_argument("--runs", type=int, default=2000, help="how many runs are listed")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if options.kubeconfig is None:
        parser.error("--kubeconfig is needed: `make cluster` prints one")
    real = Path(options.kubeconfig).resolve()
    beside = [str(folder) for folder in (real.parent, real.parent / "bin", real.parent.parent / "bin")]
    folders = os.pathsep.join([*beside, os.environ.get("PATH", "")])
    kubectl = options.kubectl or shutil.which("kubectl", path=folders)
    lorajob = shutil.which("lorajob", path=str(Path(sys.executable).parent))
    if kubectl is None or lorajob is None:
        parser.error("kubectl and lorajob must be installed")
    with tempfile.TemporaryDirectory() as scratch, place(str(real)) as cluster:
        folder = Path(scratch)
        # modules are compiled once, as where lorajob is installed; no spec file lies in the way
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "HOME": scratch, "COLUMNS": "200"}
        os.chdir(scratch)
        where = ("--kubeconfig", str(real), "--namespace", cluster.namespace)
        began = time.perf_counter()
        fill(cluster, options.runs)
        print(f"made {options.runs} runs in {time.perf_counter() - began:.0f} s", flush=True)
        bare = forever([lorajob, "--help"], [sys.executable, "-c", "pass"])
        listed = forever([lorajob, "list", *where], [kubectl, "get", "jobs", *where])
        submitted = submits(lorajob, kubectl, where, folder, environment)
        comparisons = [
            take_turns("lorajob --help", "python -c pass", 5, bare, environment, options.rounds),
            take_turns("lorajob submit", "kubectl create -f", 3, submitted, environment, options.rounds),
            take_turns("lorajob list", "kubectl get jobs", 2, listed, environment, options.rounds),
        ]
        memory = memory_bytes(["list", *where], environment)
        other_ways = clients(str(real), cluster.namespace, environment, max(3, options.rounds // 3))
    held = (
        f"`lorajob list` over {options.runs} runs held {memory / 10**6:.0f} MB (bar {LIST_MEMORY_BYTES / 10**6:.0f})."
    )
    print("", *table(comparisons), "", held, "", *other_ways, sep="\n")
    over = [f"{each.name} is at {each.ratio:.2f}x" for each in comparisons if each.ratio > each.bar]
    if memory > LIST_MEMORY_BYTES:
        over.append(f"lorajob list held {memory / 10**6:.0f} MB")
    if over:
        print(f"\nover the bar: {', '.join(over)}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
