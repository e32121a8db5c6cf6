"""The facts behind the golden model card. `python tests/job/publish/card_example.py` writes the card again."""

from __future__ import annotations

import math
from pathlib import Path

from lorajob_runtime.contract import spec
from lorajob_runtime.models.provenance import describe
from lorajob_runtime.publish import facts, model_card

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "model-card.md"

SPEC = {
    "name": "zhenhuan",
    "model": {"name": "qwen3-8b"},
    "data": {"source": "/home/someone/secret-project/huanhuan.json", "system": "现在你要扮演皇帝身边的女人--甄嬛"},
    "train": {"maxSteps": 20},
}

DATA_REPORT = {
    "source": "/home/someone/secret-project/huanhuan.json",
    "source_sha256": "1bbe8b09857274adc58186919622554df7f71dcee8655537f6a8b80993d6e6f3",
    "format": "alpaca",
    "template_family": "qwen3",
    "rows_read": 3729,
    "rows_used": 3719,
    "rows_dropped": {"no answer": 5},
    "rows_truncated": 2,
    "eval_rows": 5,
    "tokens": 262_311,
    "target_tokens": 77_402,
}


def events() -> list[dict[str, object]]:
    """A short training in which all that a card shows happens."""
    found: list[dict[str, object]] = [
        {"event": "phase", "name": "train"},
        {"event": "report", "name": "targets", "targets": {"q_proj": 36, "v_proj": 36}},
        {"event": "report", "name": "decided", "precision": "bf16", "processes": 2, "global_batch": 32},
        {"event": "evaluation", "step": 0, "loss": 4.0},
        {
            "event": "sample",
            "step": 0,
            "index": 0,
            "prompt": "你是谁？",
            "output": "我是通义千问。",
            "reference": "我是甄嬛。",
        },
        {"event": "sample", "step": 0, "index": 1, "prompt": "| a `b`", "output": "```\n# x\n```", "reference": ""},
    ]
    found += [{"event": "step", "step": n, "loss": 4 * math.exp(-n / 20), "tokens": 1000} for n in range(1, 21)]
    found += [
        {"event": "evaluation", "step": 20, "loss": 1.5},
        {
            "event": "sample",
            "step": 20,
            "index": 0,
            "prompt": "你是谁？",
            "output": "我是甄嬛，家父是大理寺少卿甄远道。",
            "reference": "我是甄嬛。",
        },
        {"event": "sample", "step": 20, "index": 1, "prompt": "| a `b`", "output": "````", "reference": ""},
    ]
    return found


def _sample(step: int, index: int, prompt: str, output: str, reference: str) -> dict[str, object]:
    answer = {"prompt": prompt, "output": output, "reference": reference}
    return {"event": "sample", "step": step, "index": index} | answer


def example() -> facts.RunFacts:
    """The facts, with fixed versions."""
    return facts.gather(
        events(),
        spec=spec.parse(SPEC),
        base=describe("modelscope:Qwen/Qwen3-8B", "master"),
        data=DATA_REPORT,
        versions={"lorajob": "0.1.0", "torch": "2.15.0", "peft": "0.21.2"},
        thinking_switch=True,
    )


if __name__ == "__main__":
    GOLDEN.write_text(model_card.render(example()), encoding="utf-8")
