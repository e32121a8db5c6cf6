"""What each field of the spec means, in one table: for the help of its flag, its comment in a file, and the docs."""

from __future__ import annotations

SECTIONS = {
    "": "Run",
    "model": "Model",
    "data": "Data",
    "lora": "LoRA",
    "train": "Training",
    "report": "Reports",
    "resources": "Resources",
    "storage": "Run",
}
"""First part of a field's path -> heading of its flags."""

CLUSTER_ONLY = frozenset(
    f"resources.{name}" for name in ("nodes", "gpuType", "cpu", "memory", "timeout", "queue", "priority", "retries")
)
"""Fields that mean nothing on one machine: flags of `submit` only, and valid in a file, so that one serves both."""

TEXTS: dict[str, str] = {
    "name": "Name of the run: its folder, its storage prefix and its experiment. Run the same name again to resume it.",
    "model.name": "Base model: a name from `lorajob models`, modelscope:ORG/NAME, hf:ORG/NAME or a folder.",
    "model.source": "Where the model's files come from, if not from its hub: modelscope:ID, hf:ID, s3://… or a folder.",
    "model.revision": "Branch, tag or commit of the model on its hub.",
    "model.trustRemoteCode": "Run Python code that the model's repository brings. Needs model.revision or a folder.",
    "model.quantize": "Load the frozen weights of a dense model in 4 bits: a fourth of the memory, and slower.",
    "data.source": "Dataset: a JSON, JSONL, CSV, TSV or Parquet file, or one of these as .gz.",
    "data.format": "Form of the rows.",
    "data.columns": "Which column plays which role, as ROLE=COLUMN,… with the roles system, instruction, input, "
    "output, history, messages, text, tools and thought.",
    "data.system": "System prompt of every row that has none of its own.",
    "data.rows": "Rows to train on, as START:STOP. -100: is the last hundred.",
    "data.evalRows": "Rows held out of training, whose loss is reported, as START:STOP.",
    "data.maxLength": "Longest conversation in tokens.",
    "data.thinking": "Train with the model's thinking mode on, where it has such a mode.",
    "data.overflow": "What to do with a row that is longer than the maximum.",
    "data.maxDropped": "Rows at fault that may be left out, as a share like 5%; error: no row may be left out.",
    "lora.rank": "Rank of the adapter.",
    "lora.alpha": "Scale of the adapter; what counts is alpha divided by rank.",
    "lora.dropout": "Dropout in front of the adapter; those of routed experts have none.",
    "lora.targets": "Weights that get an adapter, as NAME,NAME,…; auto is attention, dense layers and experts.",
    "lora.experts": "Adapters on the routed experts of a mixture of experts; auto: if the GPUs have the memory.",
    "lora.router": "An adapter on the router of a mixture of experts too.",
    "train.epochs": "Times that the dataset is gone through.",
    "train.maxSteps": "Stop after so many optimizer steps, if the epochs last longer.",
    "train.learningRate": "Highest learning rate.",
    "train.batchSize": "Rows a process in one micro-batch.",
    "train.gradientAccumulation": "Micro-batches in one optimizer step.",
    "train.scheduler": "How the learning rate goes down.",
    "train.warmup": "Steps in which the learning rate rises to its highest; below 1 a share of all steps.",
    "train.weightDecay": "Weight decay of AdamW.",
    "train.maxGradNorm": "Gradients longer than this are shortened to it; 0 leaves them as they are.",
    "train.seed": "Seed of the shuffle, the dropout and the adapter's first values.",
    "train.loggingSteps": "Steps between two lines of progress.",
    "train.saveSteps": "Steps between two checkpoints.",
    "train.keepCheckpoints": "Checkpoints kept whole, to resume from. The adapters of the older ones stay.",
    "train.gradientCheckpointing": "Compute activations again instead of keeping them: slower, in less memory.",
    "train.precision": "Precision of the frozen weights; the adapter is always fp32.",
    "train.sharding": "The whole model on each GPU (ddp) or a part of it on each (fsdp); auto: fsdp where it must be.",
    "report.swanlab.project": "SwanLab project.",
    "report.swanlab.workspace": "SwanLab workspace.",
    "report.swanlab.experiment": "SwanLab experiment.",
    "report.swanlab.mode": "Where SwanLab writes; auto is the cloud with an API key, else offline.",
    "report.samples.count": "Sample answers written before training and at the end of every epoch.",
    "report.samples.before": "Of these at most so many before training.",
    "report.samples.every": "When sample answers are written.",
    "report.samples.maxNewTokens": "Longest sample answer in tokens.",
    "resources.gpus": "GPUs to train on, one process each.",
    "resources.nodes": "Machines, each with as many GPUs.",
    "resources.gpuType": "Kind of GPU, as the platform names it.",
    "resources.cpu": "CPU cores on each machine, like 16; auto goes by the GPUs.",
    "resources.memory": "Memory on each machine, like 128Gi; auto goes by the GPUs.",
    "resources.timeout": "Longest time that the run may take, like 90m, 24h or 3d.",
    "resources.queue": "Kueue queue that the run waits in.",
    "resources.priority": "Priority class of the run.",
    "resources.retries": "Attempts after a failure that a retry can help.",
    "resources.allowOversize": "Try it even where the plan says that it does not fit into the GPUs' memory.",
    "storage.uri": "Where results go: a folder or s3://BUCKET/PREFIX. The run's name is added.",
}
"""Dotted path of a field -> one or two plain sentences."""

ABSENT: dict[str, str] = {
    "name": "made from the model's name",
    "model.source": "the model's hub",
    "model.revision": "what the cache has, else the hub's newest",
    "model.quantize": "not quantised",
    "data.source": "the small example set that comes with lorajob",
    "data.columns": "recognised from the rows",
    "data.system": "none",
    "data.rows": "all",
    "data.evalRows": "none",
    "train.maxSteps": "all epochs",
    "report.swanlab.workspace": "your own",
    "report.swanlab.experiment": "the run's name",
    "report.samples.before": "all",
    "resources.gpuType": "any",
    "resources.timeout": "the platform's",
    "resources.queue": "none",
    "resources.priority": "none",
    "storage.uri": "./runs",
}
"""Dotted path -> what a field without a value stands for."""

CLUSTER_TEXTS: dict[str, str] = {
    "name": "Name of the run: its Job, its storage prefix and its experiment.",
    "model.name": "Base model: a name from `lorajob models`, modelscope:ORG/NAME, hf:ORG/NAME or s3://….",
    "model.source": "Where the model's files come from, if not from its hub: modelscope:ID, hf:ID or s3://….",
    "data.source": "Dataset: a JSON, JSONL, CSV, TSV or Parquet file here, or s3://… of one.",
    "resources.gpus": "GPUs on each machine, one process each.",
    "storage.uri": "Where results go: s3://BUCKET/PREFIX. The run's name is added.",
}
"""Fields of which the help of `submit` says something else."""

PLAN_TEXTS: dict[str, str] = {
    **CLUSTER_TEXTS,
    "model.name": "Base model: a name from `lorajob models`, a folder with its config.json, modelscope:ORG/NAME, "
    "hf:ORG/NAME or s3://….",
    "model.source": "Where the model's files come from, if not from its hub: a folder with its config.json, "
    "modelscope:ID, hf:ID or s3://….",
}
"""The same for `plan`, which reads a folder and asks no hub."""

CLUSTER_ABSENT: dict[str, str] = {"storage.uri": "the platform's"}
"""What a field without a value stands for in a cluster, where that is something else."""
