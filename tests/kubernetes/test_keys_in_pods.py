"""A model repository's own code in a run's pod looks for keys everywhere that it can think of, and finds none."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from platform_install import install_platform
from whole_runs import TINY_SETTINGS, Place, place

from fakes.hub_server import COMMIT
from small_models import smollm2, tiny_llama

__all__ = ["place"]

pytestmark = pytest.mark.slow

SPY = """
import json, os, re, sys

NEEDLES = [text[::-1].encode() for text in {needles!r}]


def holds(data):
    return any(needle in data for needle in NEEDLES)


def look(path, found, size=1 << 22):
    try:
        with open(path, "rb") as file:
            while block := file.read(size):
                if holds(block):
                    found["keys"].append(path)
                    return
        found["opened"] += 1
    except (OSError, ValueError):
        found["refused"].append(path)


def memory(pid, found):
    try:
        maps = open(f"/proc/{{pid}}/maps").read()
        with open(f"/proc/{{pid}}/mem", "rb", 0) as mem:
            for line in maps.splitlines():
                begin, end, rights = re.match("([0-9a-f]+)-([0-9a-f]+) (....)", line).groups()
                if rights.startswith("rw") and int(end, 16) - int(begin, 16) < 1 << 28:
                    try:
                        mem.seek(int(begin, 16))
                        if holds(mem.read(int(end, 16) - int(begin, 16))):
                            found["keys"].append(f"/proc/{{pid}}/mem")
                            return
                    except (OSError, ValueError, OverflowError):
                        pass
        found["memories"] += 1
    except OSError:
        found["refused"].append(f"/proc/{{pid}}/mem")


def spy(where):
    found = {{"where": where, "keys": [], "refused": [], "opened": 0, "memories": 0}}
    for number in filter(str.isdigit, os.listdir("/proc")):
        look(f"/proc/{{number}}/environ", found)
        look(f"/proc/{{number}}/cmdline", found)
        look(f"/proc/{{number}}/root/var/run/secrets/kubernetes.io/serviceaccount/token", found)
        if int(number) != os.getpid():
            memory(number, found)
    for root in ("/run", "/var", "/etc", "/tmp", "/work", "/home", "/root", "/dev/shm"):
        for folder, _, files in os.walk(root):
            for file in files:
                path = os.path.join(folder, file)
                if not os.path.islink(path) or "/secrets/" in path:
                    look(path, found)
    found["variables"] = sorted(os.environ)
    found["token"] = []
    for folder, _, files in os.walk("/var/run/secrets"):
        for file in files:
            try:
                found["token"].append([file, open(os.path.join(folder, file)).read()[:5]])
            except OSError:
                pass
    print("SPY " + json.dumps(found), flush=True)
"""

TOKENIZER = """
import sys
from transformers import PreTrainedTokenizerFast
from .spy import spy


class Own(PreTrainedTokenizerFast):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        spy(sys.argv[0])
"""


def test_code_of_a_repository_finds_no_key_in_its_pod(place: Place, image: str, tmp_path: Path) -> None:
    keys = {
        "HF_TOKEN": "hub-key-5dee1f",
        "OUR_OWN_VARIABLE": "another-key-77aa21",
        "SWANLAB_API_KEY": "report-key-0b3c",
    }
    for name, value in keys.items():
        place.kubectl("create", "secret", "generic", name.lower().replace("_", "-"), f"--from-literal={name}={value}")
    _install(place, image)
    _shelve(place, tmp_path, [place.s3.secret_key, *keys.values()])

    settings = [
        f"--set={each}"
        for each in [*TINY_SETTINGS, "train.maxSteps=2", "report.samples.count=1", "report.samples.maxNewTokens=2"]
    ]
    done = place.lorajob(
        "submit", "--model=hf:lorajob/spy", "--name=spied", f"--revision={COMMIT}", "--trust-remote-code",
        "--yes", *settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert place.wait("spied") == 0, place.lorajob("status", "spied").stdout

    reports = _reports(place, "spied")
    assert {Path(each["where"]).parent.name for each in reports} >= {"data", "train"}, reports
    for each in reports:
        assert each["keys"] == []
        assert each["token"] == []
        assert not set(each["variables"]) & {*keys, "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"}
        # it did look: its own files open, and those of PID 1 and of the supervisor do not
        assert each["opened"] > 10
        assert "/proc/1/environ" in each["refused"]
        assert {re.sub(r"\d+", "N", path) for path in each["refused"]} >= {"/proc/N/environ", "/proc/N/mem"}


def _install(place: Place, image: str) -> None:
    chosen = {
        "limits": {"trustRemoteCode": True},
        "secrets": {"swanlab": "swanlab-api-key", "hub": "our-own-variable"},
        "defaults": {"report": {"swanlab": {"mode": "offline"}}},
    }
    install_platform(
        place.cluster, place.namespace, image=image, s3=place.s3, hub=place.hub, values={"platform": chosen}
    )


def _shelve(place: Place, folder: Path, secrets: list[str]) -> None:
    """A model whose tokenizer is code that spies."""
    tiny_llama(folder, smollm2()[0].path)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text(TOKENIZER)
    # turned round, so that the spy does not find what it looks for in its own code
    (folder / "spy.py").write_text(SPY.format(needles=[text[::-1] for text in secrets]))
    (place.hub.root / "lorajob" / "spy").symlink_to(folder)


def _reports(place: Place, name: str) -> list[dict[str, Any]]:
    """What the spy has printed in every process, as the logs in storage have it."""
    found = []
    for key in sorted(place.keys(name)):
        if key.startswith("logs/"):
            content = place.stored(name, key)
            text = (gzip.decompress(content) if key.endswith(".gz") else content).decode(errors="replace")
            found += [json.loads(line.partition("SPY ")[2]) for line in text.splitlines() if "SPY {" in line]
    return found
