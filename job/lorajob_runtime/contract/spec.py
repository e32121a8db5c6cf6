"""RunSpec: everything that says what a run is. The contract between the command line and the container.

Standard library only, frozen, versioned, strict. The file form is YAML or JSON with camelCase keys; `fields` reads
and writes it, this module says which fields there are, what they may be, and what may change when a run is resumed.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lorajob_runtime.contract import catalog, hubs, schema
from lorajob_runtime.contract.errors import ConfigError, UnknownFieldError
from lorajob_runtime.contract.schema import Reading
from lorajob_runtime.contract.text import duration_seconds

API_VERSION = "lorajob.dev/v1"
NAME_MAX_LENGTH = 52
"""A Job's pods are named <job>-<index>-<5 letters>; longer Job names are cut there."""

_RANGE, _HELD_OUT_RANGE = "a row range like 5:5000, :5 or -100:", "a row range like :5 or -100:"
_DROPPED_SHARE = "a share from 0% to 100%, or error"

FOLDERS = ("/", ".", "~")
"""How a folder begins that is never looked for in the catalog."""

_NAME_SUFFIX_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """Which base model. `source` overrides where its files come from: modelscope:ID, hf:ID, s3://… or a folder."""

    name: str = "smollm2-135m"
    source: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    quantize: Literal["nf4"] | None = None

    @property
    def is_local(self) -> bool:
        """Whether the model can only be a folder of this machine, whose code changes only by the hand of its owner.

        What names no hub, storage or package, and is not in the catalog, is a folder or nothing: `models/tiny` is as
        local as `./models/tiny`, also before it is there.
        """
        place = self.source or self.name
        return not place.startswith(hubs.PREFIXES) and (place.startswith(FOLDERS) or catalog.find(place) is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """Which rows to train on, and how they become conversations. Rows are Python slices, e.g. "5:5000".

    `max_dropped` is a share like "5%" of the rows that may be at fault and left out, or "error": none is left out.
    """

    source: str | None = None
    format: Literal["auto", "alpaca", "qa", "sharegpt", "messages", "text"] = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    system: str | None = None
    rows: str | None = schema.read_as(None, Reading(right=f"{_RANGE}, in quotes"))
    eval_rows: str | None = schema.read_as(None, Reading(right=f"{_HELD_OUT_RANGE}, in quotes"))
    max_length: int = 1024
    thinking: bool = False
    overflow: Literal["truncate", "drop", "error"] = "truncate"
    max_dropped: str = schema.read_as("5%", Reading(right=_DROPPED_SHARE))


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSpec:
    """The adapter. `targets` are module names as PEFT matches them; auto takes the model's recipe."""

    rank: int = 8
    alpha: float = 32
    dropout: float = 0.1
    targets: Literal["auto"] | tuple[str, ...] = "auto"
    experts: Literal["auto"] | bool = "auto"
    router: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec:
    """The recipe. `batch_size` is rows a GPU; `warmup` is steps, or below 1 a share of all steps."""

    epochs: float = 3
    max_steps: int | None = None
    learning_rate: float = 1e-4
    batch_size: int = 4
    gradient_accumulation: int = 4
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0
    weight_decay: float = 0
    max_grad_norm: float = 1.0
    seed: int = 42
    logging_steps: int = 10
    save_steps: int = 100
    keep_checkpoints: int = 3
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    sharding: Literal["auto", "ddp", "fsdp"] = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class SwanLabSpec:
    """Where the run is reported. auto: cloud when there is an API key, else offline."""

    project: str = "lorajob"
    workspace: str | None = None
    experiment: str | None = None
    mode: Literal["auto", "cloud", "local", "offline", "disabled"] = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplesSpec:
    """Answers generated from held-out rows at every epoch's end; before training at most the first `before` of them."""

    count: int = 5
    before: int | None = None
    every: Literal["epoch", "never"] = "epoch"
    max_new_tokens: int = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSpec:
    """Everything a run tells the world about itself."""

    swanlab: SwanLabSpec = field(default_factory=SwanLabSpec)
    samples: SamplesSpec = field(default_factory=SamplesSpec)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourcesSpec:
    """What the run needs. `gpus` is GPUs a node, one training process each. `timeout` like 90m, 24h, 3d.

    `allow_oversize`: try what by the estimate does not fit into the GPUs' memory.
    """

    gpus: int = 1
    nodes: int = 1
    gpu_type: str | None = None
    cpu: str = "auto"
    memory: str = "auto"
    timeout: str | None = None
    queue: str | None = None
    priority: str | None = None
    retries: int = 3
    allow_oversize: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageSpec:
    """Where results go: s3://bucket/prefix or a folder. None: the platform's, or ./runs."""

    uri: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """One fine-tuning run."""

    api_version: Literal["lorajob.dev/v1"] = "lorajob.dev/v1"
    name: str | None = None
    model: ModelSpec = field(default_factory=ModelSpec)
    data: DataSpec = field(default_factory=DataSpec)
    lora: LoraSpec = field(default_factory=LoraSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    report: ReportSpec = field(default_factory=ReportSpec)
    resources: ResourcesSpec = field(default_factory=ResourcesSpec)
    storage: StorageSpec = field(default_factory=StorageSpec)

    @property
    def run_name(self) -> str:
        """The name, which every spec has once it is submitted."""
        if self.name is None:
            raise ConfigError("name is null: a run has a name before it starts")
        return self.name


def parse(value: object) -> RunSpec:
    """The spec in a mapping as read from YAML or JSON. Raises ConfigError with the one field that is wrong."""
    if isinstance(value, Mapping):
        check_version(value)
    spec = schema.decode(RunSpec, value)
    validate(spec)
    return spec


def check_version(value: Mapping[str, Any]) -> None:
    """Raises UnknownFieldError for a spec or a platform in a form that this version of lorajob does not read."""
    version = value.get("apiVersion", API_VERSION)
    if version != API_VERSION:
        raise UnknownFieldError(
            f"apiVersion is {version!r}: this version of lorajob reads {API_VERSION}", path="apiVersion"
        )


def loads(text: str) -> RunSpec:
    """The spec in a JSON text. Raises ConfigError."""
    try:
        return parse(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"the spec is not JSON: {error}") from error


def to_dict(spec: RunSpec, *, defaults: bool = False) -> dict[str, Any]:
    """The mapping that `parse` reads back; apiVersion is always there."""
    return {"apiVersion": spec.api_version} | schema.encode(spec, defaults=defaults)


def dumps(spec: RunSpec, *, defaults: bool = False) -> str:
    """The spec as a JSON text of one line."""
    return json.dumps(to_dict(spec, defaults=defaults), ensure_ascii=False)


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over one another, the later ones winning field by field.

    `data.columns` is one value, not a layer: a later one replaces an earlier one whole.
    """
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            if key != "columns" and isinstance(value, Mapping) and isinstance(below, Mapping):
                result[key] = merge(below, value)
            else:
                result[key] = merge(value) if isinstance(value, Mapping) else value
    return result


def nest(path: str, value: object) -> dict[str, Any]:
    """`train.maxSteps`, 8 -> {"train": {"maxSteps": 8}}. Raises ConfigError for an empty part."""
    parts = path.split(".")
    if not all(parts):
        raise ConfigError(f"{path!r} is not the name of a field: it must be like train.maxSteps")
    nested: Any = value
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def default_name(model: str, rng: random.Random) -> str:
    """<model>-<5 random>: a DNS label of at most 52 letters."""
    base = model.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].lower()
    base = re.sub(r"[^a-z0-9]+", "-", base).strip("-")
    if not base or not base[0].isalpha():
        base = f"run-{base}".rstrip("-")
    base = base[: NAME_MAX_LENGTH - 6].rstrip("-")
    return base + "-" + "".join(rng.choices(_NAME_SUFFIX_LETTERS, k=5))


def validate(spec: RunSpec) -> None:
    """Raises ConfigError for a value out of range or an impossible combination."""
    if spec.name is not None and not valid_name(spec.name):
        raise ConfigError(
            f"name is {spec.name!r}: it must be lower-case letters, digits and -, start with a letter, "
            f"and have at most {NAME_MAX_LENGTH} characters",
            path="name",
        )
    for path, is_right, right in _RULES:
        value = value_at(spec, path)
        if value is not None and not is_right(value):
            raise ConfigError(f"{path} is {schema.plain(value)!r}: it must be {right}", path=path)
    for role in spec.data.columns:
        if role not in COLUMN_ROLES:
            raise ConfigError(
                f"data.columns has {role!r}: the roles are {', '.join(COLUMN_ROLES)}", path="data.columns"
            )
    if spec.model.trust_remote_code and not spec.model.is_local:
        check_pinned(spec.model)
    if spec.data.eval_rows is not None and spec.data.rows is None and spec.data.eval_rows == ":":
        raise ConfigError("data.evalRows is ':': it must leave rows to train on", path="data.evalRows")
    try:
        dumps(spec).encode()
    except UnicodeEncodeError as error:
        # a name of a file and an argument of a command line may be any bytes
        wrong = error.object[max(0, error.start - 40) : error.end].rpartition('"')[2]
        raise ConfigError(f"the spec holds {wrong!r}: it must be text in UTF-8") from error


def check_pinned(model: ModelSpec) -> None:
    """Raises ConfigError where a repository's code is trusted that may be another one tomorrow."""
    if not model.trust_remote_code:
        return
    if model.revision is None:
        raise ConfigError(
            "model.trustRemoteCode is true: it needs model.revision, the commit whose code you have read",
            path="model.trustRemoteCode",
        )
    if model.revision in hubs.MOVING_REVISIONS:
        without_commits = " and ".join(hub.title for hub in hubs.MODEL_HUBS if not hub.tells_commit)
        raise ConfigError(
            f"model.trustRemoteCode is true and model.revision {model.revision!r}, which moves: it must be the commit "
            f"whose code you have read, or on {without_commits} the tag",
            path="model.trustRemoteCode",
        )


COLUMN_ROLES = ("system", "instruction", "input", "output", "history", "messages", "text", "tools", "thought")

_ELSEWHERE = re.compile("|".join([r"[a-zA-Z][a-zA-Z0-9+.-]*://", *(re.escape(hub.prefix) for hub in hubs.MODEL_HUBS)]))
_SLICE = re.compile(r"-?\d*:-?\d*")
_SHARE = re.compile(r"(?:100(?:\.0+)?|\d{1,2}(?:\.\d+)?)%|error")


def valid_name(name: str) -> bool:
    """Whether a name can be a Job's, a path's and a key's."""
    return len(name) <= NAME_MAX_LENGTH and re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) is not None


def row_slice(text: str | None) -> slice:
    """`5:5000` -> slice(5, 5000); None -> all rows. Raises ConfigError."""
    if text is None:
        return slice(None)
    if _SLICE.fullmatch(text) is None:
        raise ConfigError(f"{text!r} is not a row range: it must be like 5:5000, :5 or -100:")
    start, stop = text.split(":")
    return slice(int(start) if start else None, int(stop) if stop else None)


def dropped_share(text: str) -> float | None:
    """`5%` -> 0.05: the share of rows that may be left out; None for `error`, where none may."""
    return None if text == "error" else float(text.removesuffix("%")) / 100


def _is_place(text: str, *, needs_key: bool = False) -> bool:
    """Whether a text is a path, or an address in S3: no path is empty, and none begins like an address elsewhere."""
    is_elsewhere = _ELSEWHERE.match(text) is not None and not text.startswith("s3://")
    return bool(text.strip()) and not is_elsewhere and _is_address(text, needs_key=needs_key)


def _is_address(text: str, *, needs_key: bool = False) -> bool:
    """Whether an address in S3 names a bucket, and below it something where that is needed; true of all else."""
    bucket, _, key = text.removeprefix("s3://").partition("/")
    return not text.startswith("s3://") or bool(bucket.strip() and (key.strip("/") or not needs_key))


_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("model.name", lambda v: v and _is_address(v), f"a catalog name, {hubs.FORMS} or a folder"),
    (
        "model.source",
        lambda v: v and _is_address(v),
        f"{hubs.FORMS}, {hubs.S3.form} or a folder",
    ),
    ("data.source", lambda v: _is_place(v, needs_key=True), "a file, or s3://BUCKET/KEY"),
    ("storage.uri", lambda v: _is_place(v), "a folder, or s3://BUCKET/PREFIX"),
    ("data.rows", lambda v: _SLICE.fullmatch(v) is not None, _RANGE),
    ("data.evalRows", lambda v: _SLICE.fullmatch(v) is not None, _HELD_OUT_RANGE),
    ("data.maxLength", lambda v: 2 <= v <= 10_000_000, "from 2 to 10000000 tokens"),
    ("data.maxDropped", lambda v: _SHARE.fullmatch(v) is not None, _DROPPED_SHARE),
    ("lora.rank", lambda v: 1 <= v <= 1024, "from 1 to 1024"),
    ("lora.alpha", lambda v: v > 0, "above 0"),
    ("lora.dropout", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("lora.targets", lambda v: len(v) > 0, "auto or a list of texts"),
    ("train.epochs", lambda v: 0 < v <= 10_000, "above 0 and at most 10000"),
    ("train.maxSteps", lambda v: v >= 1, "at least 1, or null"),
    ("train.learningRate", lambda v: 0 < v < 1, "above 0 and below 1"),
    ("train.batchSize", lambda v: 1 <= v <= 100_000, "from 1 to 100000"),
    ("train.gradientAccumulation", lambda v: 1 <= v <= 100_000, "from 1 to 100000"),
    ("train.warmup", lambda v: v >= 0 and (v < 1 or v == int(v)), "whole steps, or a share of all steps below 1"),
    ("train.weightDecay", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("train.maxGradNorm", lambda v: v >= 0, "at least 0 (0 turns clipping off)"),
    ("train.seed", lambda v: 0 <= v < 2**32, "from 0 to 4294967295"),
    ("train.loggingSteps", lambda v: v >= 1, "at least 1"),
    ("train.saveSteps", lambda v: v >= 1, "at least 1"),
    ("train.keepCheckpoints", lambda v: v >= 1, "at least 1"),
    (
        "report.swanlab.project",
        lambda v: re.fullmatch(r"[0-9A-Za-z_.+-]{1,100}", v) is not None,
        "at most 100 letters, digits and _ . + -, as SwanLab takes it",
    ),
    ("report.samples.count", lambda v: 0 <= v <= 1000, "from 0 to 1000"),
    ("report.samples.before", lambda v: v >= 0, "at least 0"),
    ("report.samples.maxNewTokens", lambda v: v >= 1, "at least 1"),
    ("resources.gpus", lambda v: 1 <= v <= 64, "from 1 to 64"),
    ("resources.nodes", lambda v: 1 <= v <= 1024, "from 1 to 1024"),
    ("resources.retries", lambda v: 0 <= v <= 100, "from 0 to 100"),
    ("resources.timeout", lambda v: duration_seconds(v) is not None, "a duration like 90m, 24h or 3d"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One field that differs between two specs."""

    field: str
    was: Any
    now: Any


MAY_CHANGE_ON_RESUME = frozenset(
    {"data.source", "data.maxDropped", "train.saveSteps", "train.keepCheckpoints", "train.loggingSteps"}
)
"""Fields of the fixed groups that leave the result as it is. The dataset's identity is its hash, checked apart."""


def changes(was: RunSpec, now: RunSpec) -> list[Change]:
    """What differs in model, data, lora or train: with any of these a resumed run would not be the same run."""
    found = []
    for group in ("model", "data", "lora", "train"):
        before, after = schema.encode(getattr(was, group)), schema.encode(getattr(now, group))
        for key in before:
            path = f"{group}.{key}"
            if before[key] != after[key] and path not in MAY_CHANGE_ON_RESUME:
                found.append(Change(field=path, was=before[key], now=after[key]))
    return found


def value_at(spec: RunSpec, path: str) -> Any:
    """The value of a field by its dotted camelCase path."""
    value: Any = spec
    for key in path.split("."):
        names = {schema.camel(item.name): item.name for item in dataclasses.fields(value)}
        value = getattr(value, names[key])
    return value


def field_paths() -> list[tuple[str, Any, Any]]:
    """(dotted camelCase path, type, default) of every field that a user may set, apiVersion left out."""

    def walk(cls: type, prefix: str) -> list[tuple[str, Any, Any]]:
        found: list[tuple[str, Any, Any]] = []
        example = cls()
        for item in dataclasses.fields(cls):
            expected = schema.hints(cls)[item.name]
            path = prefix + schema.camel(item.name)
            if dataclasses.is_dataclass(expected):
                found += walk(expected, path + ".")  # type: ignore[arg-type]
            elif path != "apiVersion":
                found.append((path, expected, getattr(example, item.name)))
        return found

    return walk(RunSpec, "")
