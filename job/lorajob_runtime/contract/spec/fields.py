"""The fields of a spec, and all that is to be said of each: its flag, its help, its line in files and docs, its range.

`option` explains what an entry may say; docs/decisions.md says what a new field touches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lorajob_runtime.contract import catalog, hubs
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import rules
from lorajob_runtime.contract.spec.naming import NAME
from lorajob_runtime.contract.spec.option import group, option


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """Which base model. `source` overrides where its files come from: a hub (contract/hubs.py) or a folder."""

    name: str = option(
        "smollm2-135m",
        f"Base model: a name from `lorajob models`, {hubs.FORMS} or a folder.",
        submit=f"Base model: a name from `lorajob models`, {hubs.FORMS} or s3://….",
        plan=f"Base model: a name from `lorajob models`, a folder with its config.json, {hubs.FORMS} or s3://….",
        rule=rules.MODEL,
        flag="model",
        short="-m",
        completes="model",
    )
    source: str | None = option(
        None,
        f"Where the model's files come from, if not from its hub: {hubs.SHORT_FORMS}, s3://… or a folder.",
        submit=f"Where the model's files come from, if not from its hub: {hubs.SHORT_FORMS} or s3://….",
        plan="Where the model's files come from, if not from its hub: a folder with its config.json, "
        f"{hubs.SHORT_FORMS} or s3://….",
        absent="the model's hub",
        rule=rules.MODEL_SOURCE,
        flag="model-source",
        completes="file",
    )
    revision: str | None = option(
        None, "Branch, tag or commit of the model on its hub.", absent="what the cache has, else the hub's newest"
    )
    trust_remote_code: bool = option(
        False, "Run Python code that the model's repository brings. Needs model.revision or a folder."
    )
    quantize: Literal["nf4"] | None = option(
        None,
        "Load the frozen weights of a dense model in 4 bits: a fourth of the memory, and slower.",
        absent="not quantised",
    )

    @property
    def is_local(self) -> bool:
        """Whether the model can only be a folder of this machine, whose code changes only by the hand of its owner.

        What names no hub, storage or package, and is not in the catalog, is a folder or nothing: `models/tiny` is as
        local as `./models/tiny`, also before it is there.
        """
        place = self.source or self.name
        return not place.startswith(hubs.PREFIXES) and (place.startswith(rules.FOLDERS) or catalog.find(place) is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """Which rows to train on, and how they become conversations. Rows are Python slices, e.g. "5:5000"."""

    source: str | None = option(
        None,
        "Dataset: a JSON, JSONL, CSV, TSV or Parquet file, or one of these as .gz.",
        submit="Dataset: a JSON, JSONL, CSV, TSV or Parquet file here, or s3://… of one.",
        absent="the small example set that comes with lorajob",
        rule=rules.DATA_SOURCE,
        resume="place",
        flag="data",
        short="-d",
        completes="file",
    )
    format: Literal["auto", "alpaca", "qa", "sharegpt", "messages", "text"] = option("auto", "Form of the rows.")
    columns: dict[str, str] = option(
        {},
        "Which column plays which role, as ROLE=COLUMN,… with the roles "
        f"{', '.join(rules.COLUMN_ROLES[:-1])} and {rules.COLUMN_ROLES[-1]}.",
        absent="recognised from the rows",
        metavar="ROLE=COLUMN,…",
    )
    system: str | None = option(None, "System prompt of every row that has none of its own.", absent="none")
    rows: str | None = option(
        None,
        "Rows to train on, as START:STOP. -100: is the last hundred.",
        absent="all",
        rule=rules.ROWS,
        metavar="RANGE",
    )
    eval_rows: str | None = option(
        None,
        "Rows held out of training, whose loss is reported, as START:STOP.",
        absent="none",
        rule=rules.HELD_OUT_ROWS,
        metavar="RANGE",
    )
    max_length: int = option(
        1024, "Longest conversation in tokens.", at_least=2, at_most=10_000_000, right="from 2 to 10000000 tokens"
    )
    thinking: bool = option(False, "Train with the model's thinking mode on, where it has such a mode.")
    overflow: Literal["truncate", "drop", "error"] = option(
        "truncate", "What to do with a row that is longer than the maximum."
    )
    max_dropped: str = option(
        "5%",
        "Rows at fault that may be left out, as a share like 5%; error: no row may be left out.",
        rule=rules.SHARE,
        resume="may change",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSpec:
    """The adapter. `targets` are module names as PEFT matches them; auto takes the model's recipe."""

    rank: int = option(8, "Rank of the adapter.", at_least=1, at_most=1024)
    alpha: float = option(32, "Scale of the adapter; what counts is alpha divided by rank.", above=0)
    dropout: float = option(
        0.1, "Dropout in front of the adapter; those of routed experts have none.", at_least=0, below=1
    )
    targets: Literal["auto"] | tuple[str, ...] = option(
        "auto",
        "Weights that get an adapter, as NAME,NAME,…; auto is attention, dense layers and experts.",
        rule=rules.TARGETS,
        metavar="auto|NAME,…",
    )
    experts: Literal["auto"] | bool = option(
        "auto", "Adapters on the routed experts of a mixture of experts; auto: if the GPUs have the memory."
    )
    router: bool = option(False, "An adapter on the router of a mixture of experts too.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec:
    """The recipe. `batch_size` is rows a GPU; `warmup` is steps, or below 1 a share of all steps."""

    epochs: float = option(3, "Times that the dataset is gone through.", above=0, at_most=10_000)
    max_steps: int | None = option(
        None,
        "Stop after so many optimizer steps, if the epochs last longer.",
        absent="all epochs",
        at_least=1,
        right="at least 1, or null",
    )
    learning_rate: float = option(1e-4, "Highest learning rate.", above=0, below=1)
    batch_size: int = option(4, "Rows a process in one micro-batch.", at_least=1, at_most=100_000)
    gradient_accumulation: int = option(4, "Micro-batches in one optimizer step.", at_least=1, at_most=100_000)
    scheduler: Literal["linear", "cosine", "constant"] = option("linear", "How the learning rate goes down.")
    warmup: float = option(
        0,
        "Steps in which the learning rate rises to its highest; below 1 a share of all steps.",
        at_least=0,
        rule=rules.WARMUP,
    )
    weight_decay: float = option(0, "Weight decay of AdamW.", at_least=0, below=1)
    max_grad_norm: float = option(
        1.0,
        "Gradients longer than this are shortened to it; 0 leaves them as they are.",
        at_least=0,
        right="at least 0 (0 turns clipping off)",
    )
    seed: int = option(
        42, "Seed of the shuffle, the dropout and the adapter's first values.", at_least=0, at_most=2**32 - 1
    )
    logging_steps: int = option(10, "Steps between two lines of progress.", at_least=1, resume="may change")
    save_steps: int = option(100, "Steps between two checkpoints.", at_least=1, resume="may change")
    keep_checkpoints: int = option(
        3,
        "Checkpoints kept whole, to resume from. The adapters of the older ones stay.",
        at_least=1,
        resume="may change",
    )
    tokens_per_micro_batch: int | None = option(
        None,
        "Most tokens that go through the model at a time; a longer row goes alone. A step's rows stay as they are.",
        absent="chosen by the memory that is free",
        at_least=1,
        right="at least 1, or null",
        resume="may change",
    )
    gradient_checkpointing: Literal["auto"] | bool = option(
        "auto", "Compute activations again instead of keeping them: slower, in less memory."
    )
    precision: Literal["auto", "bf16", "fp32"] = option(
        "auto", "Precision of the frozen weights; the adapter is always fp32."
    )
    base_compute: Literal["fp8"] | None = option(
        None,
        "Multiply with the frozen weights of a dense model in FP8, on GPUs from Ada on: less exact, for speed.",
        absent="in the precision of the weights",
    )
    sharding: Literal["auto", "ddp", "fsdp"] = option(
        "auto", "The whole model on each GPU (ddp) or a part of it on each (fsdp); auto: fsdp where it must be."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SwanLabSpec:
    """Where the run is reported. auto: cloud when there is an API key, else offline."""

    project: str = option("lorajob", "SwanLab project.", rule=rules.PROJECT)
    workspace: str | None = option(None, "SwanLab workspace.", absent="your own")
    experiment: str | None = option(None, "SwanLab experiment.", absent="the run's name")
    mode: Literal["auto", "cloud", "local", "offline", "disabled"] = option(
        "auto", "Where SwanLab writes; auto is the cloud with an API key, else offline."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplesSpec:
    """Answers generated from held-out rows at every epoch's end; before training at most the first `before` of them."""

    count: int = option(
        5, "Sample answers written before training and at the end of every epoch.", at_least=0, at_most=1000
    )
    before: int | None = option(None, "Of these at most so many before training.", absent="all", at_least=0)
    every: Literal["epoch", "never"] = option("epoch", "When sample answers are written.")
    max_new_tokens: int = option(128, "Longest sample answer in tokens.", at_least=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSpec:
    """Everything a run tells the world about itself."""

    swanlab: SwanLabSpec = group(SwanLabSpec)
    samples: SamplesSpec = group(SamplesSpec)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourcesSpec:
    """What the run needs. `gpus` is GPUs a node, one training process each. `timeout` like 90m, 24h, 3d.

    `allow_oversize`: try what by the estimate does not fit into the GPUs' memory.
    """

    gpus: int = option(
        1,
        "GPUs to train on, one process each.",
        submit="GPUs on each machine, one process each.",
        at_least=1,
        at_most=64,
    )
    nodes: int = option(1, "Machines, each with as many GPUs.", at_least=1, at_most=1024, only_in_cluster=True)
    gpu_type: str | None = option(None, "Kind of GPU, as the platform names it.", absent="any", only_in_cluster=True)
    cpu: str = option("auto", "CPU cores on each machine, like 16; auto goes by the GPUs.", only_in_cluster=True)
    memory: str = option("auto", "Memory on each machine, like 128Gi; auto goes by the GPUs.", only_in_cluster=True)
    timeout: str | None = option(
        None,
        "Longest time that the run may take, like 90m, 24h or 3d.",
        absent="the platform's",
        rule=rules.DURATION,
        only_in_cluster=True,
    )
    queue: str | None = option(None, "Kueue queue that the run waits in.", absent="none", only_in_cluster=True)
    priority: str | None = option(None, "Priority class of the run.", absent="none", only_in_cluster=True)
    retries: int = option(
        3, "Attempts after a failure that a retry can help.", at_least=0, at_most=100, only_in_cluster=True
    )
    allow_oversize: bool = option(False, "Try it even where the plan says that it does not fit into the GPUs' memory.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageSpec:
    """Where results go: s3://bucket/prefix or a folder. None: the platform's, or ./runs."""

    uri: str | None = option(
        None,
        "Where results go: a folder or s3://BUCKET/PREFIX. The run's name is added.",
        submit="Where results go: s3://BUCKET/PREFIX. The run's name is added.",
        absent="./runs",
        absent_in_cluster="the platform's",
        rule=rules.STORAGE,
        resume="place",
        flag="storage",
        short="-s",
        completes="file",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """One fine-tuning run."""

    api_version: Literal["lorajob.dev/v1"] = "lorajob.dev/v1"
    name: str | None = option(
        None,
        "Name of the run: its folder, its storage prefix and its experiment. Run the same name again to resume it.",
        submit="Name of the run: its Job, its storage prefix and its experiment.",
        absent="made from the model's name",
        rule=NAME,
        resume="place",
    )
    model: ModelSpec = group(ModelSpec, "Model")
    data: DataSpec = group(DataSpec, "Data")
    lora: LoraSpec = group(LoraSpec, "LoRA")
    train: TrainSpec = group(TrainSpec, "Training")
    report: ReportSpec = group(ReportSpec, "Reports", resume="may change")
    resources: ResourcesSpec = group(ResourcesSpec, "Resources", resume="may change")
    storage: StorageSpec = group(StorageSpec, "Run", resume="may change")

    @property
    def run_name(self) -> str:
        """The name, which every spec has once it is submitted."""
        if self.name is None:
            raise ConfigError("name is null: a run has a name before it starts", path="name")
        return self.name
