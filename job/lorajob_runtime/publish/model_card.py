"""The model card: Markdown with the metadata that the Hub reads. Pure; nothing of the machine's paths gets in."""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePath

from lorajob_runtime.contract import layout
from lorajob_runtime.contract.text import plural
from lorajob_runtime.data.rows import unused
from lorajob_runtime.models.provenance import hub_licence
from lorajob_runtime.publish.facts import RunFacts, Sample

_LONGEST_TEXT = 1500
_SAMPLES = 5


def render(facts: RunFacts) -> str:
    """The whole README.md."""
    parts = [
        _front_matter(facts),
        f"# {facts.spec.run_name}",
        _opening(facts),
        _results(facts),
        _samples(facts.samples),
        _use(facts),
        _data(facts),
        _recipe(facts),
        _versions(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: RunFacts) -> str:
    """YAML in which every text is written as JSON, so that no name can break out of its line."""
    base = facts.base
    lines = ["---"]
    if base.on_hub:
        lines += [f"base_model: {json.dumps(base.load_name)}", "base_model_relation: adapter"]
    lines += ["library_name: peft", "pipeline_tag: text-generation"]
    if base.licence is not None:
        identifier, name = hub_licence(base.licence)
        lines.append(f"license: {identifier}")
        if name is not None:
            lines.append(f"license_name: {json.dumps(name)}")
    tags = ["lora", "sft", "transformers", "lorajob"]
    if base.on_hub:
        tags.append(f"base_model:adapter:{base.load_name}")
    lines += ["tags:", *(f"- {json.dumps(tag) if ':' in tag else tag}" for tag in tags), "---"]
    return "\n".join(lines)


def _opening(facts: RunFacts) -> str:
    base = facts.base
    name = f"[{base.shown}]({base.page})" if base.on_hub else f"`{base.shown}`"
    text = f"A LoRA adapter for {name}, trained with lorajob. The base weights came from {base.origin}."
    if not base.exact:
        text += " They differ slightly from the published ones, and so may answers on those."
    return text


def _results(facts: RunFacts) -> str:
    if not facts.losses:
        return ""
    before, after = facts.loss_before, facts.loss_after
    rows = [("training loss", _number(before), _number(after))]
    if facts.evaluations:
        first, last = facts.evaluations[0][1], facts.evaluations[-1][1]
        rows.append(("evaluation loss", _number(first), _number(last)))
        rows.append(("evaluation perplexity", _perplexity(first), _perplexity(last)))
    table = ["| | before | after |", "|---|---:|---:|", *(f"| {name} | {was} | {now} |" for name, was, now in rows)]
    steps = facts.losses[-1][0]
    lengths = f"{plural(steps, 'step')}, {facts.tokens:,} tokens"
    note = f"{lengths}. Training loss: the first step's, and the mean of the last ten."
    return "\n\n".join(["## Result", "\n".join(table), note, f"![loss by step]({layout.LOSS_CURVE})"])


def _samples(samples: tuple[Sample, ...]) -> str:
    if not samples:
        return ""
    parts = ["## Before and after"]
    for sample in samples[:_SAMPLES]:
        parts += [f"**Prompt**\n\n{_fenced(sample.prompt)}"]
        if sample.before is not None:
            parts += [f"Before\n\n{_fenced(sample.before)}"]
        parts += [f"After\n\n{_fenced(sample.after)}"]
        if sample.reference:
            parts += [f"In the data\n\n{_fenced(sample.reference)}"]
    return "\n\n".join(parts)


def _use(facts: RunFacts) -> str:
    messages = [{"role": "user", "content": facts.samples[0].prompt if facts.samples else "Who are you?"}]
    if facts.spec.data.system:
        messages.insert(0, {"role": "system", "content": facts.spec.data.system})
    written = ",\n".join(f"    {_python(message)}" for message in messages)
    thinking = f", enable_thinking={facts.spec.data.thinking}" if facts.thinking_switch else ""
    trusted = facts.spec.model.trust_remote_code
    trust = ", trust_remote_code=True" if trusted else ""
    if trusted and facts.base.hub_revision:
        trust += f", revision={_python(facts.base.hub_revision)}"
    imported, options = _loading(facts)
    stops = f", eos_token_id={list(facts.ends)}" if facts.ends else ""
    code = f"""from peft import PeftModel
from transformers import {", ".join(sorted(["AutoModelForCausalLM", "AutoTokenizer", *imported]))}

adapter = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = AutoModelForCausalLM.from_pretrained({_python(facts.base.shown)}, dtype="auto"{trust}{options})
model = PeftModel.from_pretrained(model, adapter).eval()

messages = [
{written},
]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True{thinking}, return_dict=True, return_tensors="pt"
)
output = model.generate(**inputs, max_new_tokens=256, do_sample=False{stops})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
    return f"""## Use

With lorajob, which knows the system prompt and the switches of training:

```sh
lorajob generate .{" --trust-remote-code" if trusted else ""} --prompt 'Who are you?'
```

With PEFT:

{_fenced(code, "python")}{_stopping(facts)}"""


def _stopping(facts: RunFacts) -> str:
    """What a server of the base must be told that its own files do not say."""
    if not facts.ends:
        return ""
    listed = ", ".join(map(str, facts.ends))
    return (
        f"\n\nAnswers end with one of the tokens {listed}. The base does not stop at all of them by itself: where it "
        "is served, give them as stop tokens (`stop_token_ids`), or this folder's `generation_config.json`."
    )


def _loading(facts: RunFacts) -> tuple[list[str], str]:
    """What has transformers load the base's weights as training did: classes to import, arguments.

    transformers takes no other quantisation for weights that are published in FP8: those are dequantised first.
    """
    if facts.fp8:
        # as they are stored PEFT cannot adapt them
        return ["FineGrainedFP8Config"], ", quantization_config=FineGrainedFP8Config(dequantize=True)"
    if facts.spec.model.quantize is None:
        return [], ""
    dtype = {"bf16": "bfloat16", "fp32": "float32"}[str(facts.decided.get("precision", "bf16"))]
    nf4 = (
        'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, '
        f'bnb_4bit_compute_dtype="{dtype}"'
    )
    return ["BitsAndBytesConfig"], f", quantization_config=BitsAndBytesConfig(\n    {nf4}\n)"


def _data(facts: RunFacts) -> str:
    data = facts.data
    used, read = data.get("rows_used", 0), data.get("rows_read", 0)
    rows = [
        ("file", _plain(PurePath(str(data.get("source", ""))).name)),
        ("sha256", f"`{data.get('source_sha256', '')}`"),
        ("form", _plain(str(data.get("format", "")))),
        ("rows", f"{used:,} of {read:,} used"),
        ("dropped", _dropped(data.get("rows_dropped", {}))),
        ("truncated", f"{data.get('rows_truncated', 0):,}"),
        ("held out for evaluation", f"{data.get('eval_rows', 0):,}"),
        ("tokens an epoch", f"{data.get('tokens', 0):,}, of which {data.get('target_tokens', 0):,} carry loss"),
        ("chat template", _plain(str(data.get("template_family", "")))),
    ]
    if names := unused.lines(data.get("unused") or {}):
        rows.append(("not used", _plain("; ".join(names))))
    if facts.spec.data.system:
        rows.append(("system prompt", _plain(facts.spec.data.system)))
    return "## Data\n\n" + _table(rows)


def _recipe(facts: RunFacts) -> str:
    lora, train, decided = facts.spec.lora, facts.spec.train, facts.decided
    # rows a step stay as they were decided at the first start; processes may be others after a resume
    batch = [("batch", f"{plural(decided['global_batch'], 'row')} a step")] if decided else []
    rows = [
        ("LoRA", f"rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}"),
        ("modules", ", ".join(f"{name} ({count})" for name, count in facts.targets.items()) or str(lora.targets)),
        ("epochs", f"{train.epochs:g}" + (f", at most {plural(train.max_steps, 'step')}" if train.max_steps else "")),
        ("learning rate", f"{train.learning_rate:g}, {train.scheduler}, warm-up {train.warmup:g}"),
        *batch,
        ("optimizer", f"AdamW, weight decay {train.weight_decay:g}, gradient norm at most {train.max_grad_norm:g}"),
        ("precision", str(decided.get("precision", train.precision))),
        *_quantized(facts),
        ("longest row", f"{facts.spec.data.max_length} tokens"),
        ("thinking", "on" if facts.spec.data.thinking else "off"),
        ("seed", str(train.seed)),
    ]
    return "## Recipe\n\n" + _table(rows)


def _quantized(facts: RunFacts) -> list[tuple[str, str]]:
    """In what form the frozen weights were trained on, where it is not the plain one."""
    published = ["dequantised from FP8"] if facts.fp8 else []
    trained = [f"in {facts.spec.model.quantize}"] if facts.spec.model.quantize else []
    how = ", then ".join(published + trained)
    return [("quantized", f"base weights {how}")] if how else []


def _versions(facts: RunFacts) -> str:
    return "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in facts.versions.items())


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _dropped(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count:,} ({_plain(reason)})" for reason, count in reasons.items()) or "0"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _perplexity(loss: float) -> str:
    return f"{math.exp(min(loss, 700.0)):.4g}"


def _plain(text: str) -> str:
    """Text from outside as one table cell: no line ends, no markup of its own."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _fenced(text: str, language: str = "text") -> str:
    """A code block that no run of backticks in the text can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = text if len(text) <= _LONGEST_TEXT or language != "text" else text[:_LONGEST_TEXT] + " …"
    return f"{fence}{language}\n{shown}\n{fence}"


def _python(value: object) -> str:
    """A Python literal, with double quotes as JSON writes them."""
    return json.dumps(value, ensure_ascii=False)
