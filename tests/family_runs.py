"""The five recipes as their users start them: each model tiny, but under its own id on a hub, and lorajob typed out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import families
import family_tokenizers
import fp8_checkpoints
from fakes.hub_server import HubServer
from lorajob_runtime.contract import catalog
from small_models import TOKENIZER_FILES, smollm2

EXAMPLES = Path(__file__).parents[1] / "examples"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One spec file of examples/, the model it trains, and a row of the kind of data that it is for."""

    example: str
    model: str
    row: Callable[[int], Row]

    @property
    def file(self) -> Path:
        return EXAMPLES / f"{self.example}.yaml"

    @property
    def hub_id(self) -> str:
        """The model's id on the hub that is asked first."""
        return catalog.get(self.model).ids["modelscope"]


def _alpaca(number: int) -> Row:
    return {
        "instruction": f"第{number}位小主，昨夜睡得可好？",
        "input": "",
        "output": f"回皇上，臣妾{number}更才歇下。",
    }


def _law(number: int) -> Row:
    return {
        "instruction": "你是一个法律专家，请根据用户的问题给出专业的回答",
        "input": f"第{number}号合同没有盖章，是否有效？",
        "output": f"依法成立的合同{number}，自成立时生效。",
    }


def _turns(number: int) -> Row:
    asked = {"from": "human", "value": f"发烧{number}天了，要不要去医院？"}
    return {"conversations": [asked, {"from": "gpt", "value": f"烧了{number}天应当就诊，先量体温。"}]}


RECIPES = {
    "qwen3": Recipe(example="qwen3-8b-zhenhuan", model="qwen3-8b", row=_alpaca),
    "qwen2.5": Recipe(example="qwen2.5-coder-7b-law", model="qwen2.5-coder-7b", row=_law),
    "hunyuan": Recipe(example="hunyuan-a13b-zhenhuan", model="hunyuan-a13b", row=_alpaca),
    "glm-4.5": Recipe(example="glm-4.5-air-zhenhuan", model="glm-4.5-air", row=_alpaca),
    "minimax-m2": Recipe(example="minimax-m2-medical", model="minimax-m2", row=_turns),
}

IN_FP8 = ("minimax-m2",)
"""Families whose weights are published in FP8."""

WITH_CODE = ("hunyuan",)
"""Families whose repositories have Python code for model and tokenizer."""


def write_model(family: str, folder: Path) -> Path:
    """A tiny model with the family's tokenizer and template; with SmolLM2's where the real ones are not there."""
    if family_tokenizers.SHARED.is_dir():
        family_tokenizers.write(family, folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            shutil.copyfile(smollm2()[0].path / name, folder / name)
    tokenizer = family_tokenizers.load(folder)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return families.tiny(family, folder, vocabulary=len(tokenizer), **ends)


def put_on_hub(family: str, hub: HubServer, folder: Path) -> Path:
    """The family's model under its real id on a hub, as it is published: MiniMax's in FP8, Hunyuan's with its code.

    Returns a folder with the same numbers as a plain model, which is the hub's own or below `folder`.
    """
    shelf = hub.root / RECIPES[family].hub_id
    if family in IN_FP8:
        quantised, plain = fp8_checkpoints.write(write_model(family, folder / "made"), folder)
        shelf.parent.mkdir(parents=True)
        quantised.rename(shelf)
        return plain
    write_model(family, shelf)
    if family not in WITH_CODE:
        return shelf
    plain = shutil.copytree(shelf, folder / "plain")
    _add_code(shelf)
    return plain


def _add_code(folder: Path) -> None:
    """What Hunyuan's repository has beside its weights: names of its own, and code that ends who runs it."""
    if family_tokenizers.SHARED.is_dir():
        family_tokenizers.as_code(folder)
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "configuration_hunyuan.HunYuanConfig"}
    classes |= {"AutoModelForCausalLM": "hunyuan.HunYuanMoEV1ForCausalLM"}
    config |= {"model_type": "hunyuan", "auto_map": classes, "attention_head_dim": config.pop("head_dim")}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("configuration_hunyuan.py", "hunyuan.py"):
        (folder / name).write_text("logger.warning('nobody has made this name')")


def write_data(family: str, folder: Path, rows: int) -> Path:
    """A dataset of the kind that the recipe is for: a list, or JSON Lines where the recipe's file is."""
    recipe = RECIPES[family]
    found = [recipe.row(number) for number in range(rows)]
    if recipe.row is _alpaca:
        path, text = folder / "rows.json", json.dumps(found, ensure_ascii=False)
    else:
        path, text = folder / "rows.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in found)
    path.write_text(text, "utf-8")
    return path


class Person:
    """Someone with a working folder, a dataset and a hub, on a machine without GPUs."""

    def __init__(self, root: Path, hub: HubServer, cache: Path) -> None:
        self.root = root
        ours = {"LORAJOB_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "SWANLAB_API_KEY": ""}
        self.variables = os.environ | hub.variables(cache) | ours

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`lorajob` with arguments, going on; its output is in pipes."""
        return subprocess.Popen(
            [sys.executable, "-m", "lorajob", *arguments],
            cwd=self.root,
            env=self.variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, seconds: float = 400) -> subprocess.CompletedProcess[str]:
        """`lorajob` with arguments, come to its end."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def settings(*values: str) -> list[str]:
    """`--set` for each."""
    return [f"--set={value}" for value in values]
