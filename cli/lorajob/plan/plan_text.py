"""A run's plan for a person: one line a fact for `submit`, tables for `lorajob plan`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lorajob import tables
from lorajob.plan import gpus, run_plan
from lorajob.plan import speed as speed_module
from lorajob.plan.run_plan import RunPlan
from lorajob_runtime.contract.text import (
    binary_size,
    decimal_size,
    duration,
    gibibytes,
    parameter_count,
    plural,
    short_count,
)
from lorajob_runtime.models.gpu_sizes import GPU_SIZES
from lorajob_runtime.models.gpu_speeds import Network
from lorajob_runtime.models.placement import MinimumGpus

TITLES = {
    "weights": "weights",
    "gathered_layers": "layers gathered",
    "gathered_embedding_and_head": "embedding and head gathered",
    "adapter": "adapter, gradients, optimizer",
    "activations": "activations",
    "transient": "transient logits and gradients",
    "workspace": "CUDA and its libraries",
    "reserve": "reserve",
}
"""Part of an estimate -> what it is called."""

STEP_TITLES = {
    "products": "matrix products",
    "kernels": "other kernels",
    "launches": "launches",
    "gathers": "gathering weights",
    "gradient_sum": "summing gradients",
    "optimizer": "optimizer",
    "input": "input",
}
"""Part of a step's time -> what it is called."""

_SHOWN_SHARE = 0.01
"""Of a step's time, below which a part is not worth a word."""

NETWORK_TITLES: dict[Network, str] = {"infiniband": "InfiniBand", "ethernet": "Ethernet"}


def lines(plan: RunPlan) -> list[str]:
    """All of it: what is known of the run, what takes the memory, and how many GPUs would be enough."""
    facts = [("model", model_text(plan)), ("gpus", gpus_text(plan))]
    if plan.placement is None:
        return [*tables.fields(facts), "", *warnings(plan)]
    facts += [
        ("adapter", adapter_text(plan)),
        ("spread", spread_text(plan)),
        ("memory", memory_text(plan)),
        ("host memory", f"{binary_size(plan.placement.estimate.host)} a process"),
        ("download", "" if plan.entry is None else f"{decimal_size(plan.entry.weights_bytes)}, once into the cache"),
        ("results", results_text(plan)),
        ("steps", steps_text(plan)),
        ("time", speed_text(plan)),
        ("more GPUs", more_gpus_text(plan)),
    ]
    return [*tables.fields(facts), "", *_parts(plan), "", *_enough(plan)]


def model_text(plan: RunPlan) -> str:
    """`qwen3-8b: Qwen3 8B, 8.2B parameters, Apache-2.0`; of a folder its type and size."""
    name, shapes = plan.spec.model.name, plan.architecture
    if shapes is None:
        return f"{name}, whose sizes are not known here"
    title = f"{plan.entry.name}: {plan.entry.title}" if plan.entry is not None else f"{name}: {shapes.model_type}"
    active = f", {parameter_count(shapes.active_parameters)} of them active" if shapes.has_experts else ""
    licence = f", {plan.entry.licence}" if plan.entry is not None else ""
    return f"{title}, {parameter_count(shapes.parameters)} parameters{active}{licence}"


def gpus_text(plan: RunPlan) -> str:
    """How many GPUs with how much memory, and who says so."""
    resources, memory = plan.spec.resources, plan.gpu
    count = (
        str(plan.gpus) if resources.nodes == 1 else f"{plan.gpus} ({resources.gpus} on each of {resources.nodes} nodes)"
    )
    return (
        f"{count}, memory not known"
        if memory.size is None
        else f"{count} of {gibibytes(memory.size)} ({memory.source})"
    )


def adapter_text(plan: RunPlan) -> str:
    """The adapter's size, and in a mixture of experts whether they have part in it."""
    if plan.placement is None or plan.architecture is None:
        return ""
    trained = f"rank {plan.spec.lora.rank}, {short_count(plan.placement.estimate.trained_parameters)} parameters"
    if not plan.architecture.has_experts:
        return trained
    if plan.placement.experts:
        return f"{trained}, routed experts too"
    left_out = ": there is no room for them" if run_plan.leaves_experts_open(plan) else ""
    return f"{trained}, none on routed experts{left_out}"


def spread_text(plan: RunPlan) -> str:
    """How the model is spread over the GPUs, and whether activations are saved or recomputed."""
    if plan.placement is None:
        return ""
    estimate, nodes = plan.placement.estimate, plan.spec.resources.nodes
    saved = _saved(estimate.recompute_every)
    if not plan.placement.sharded:
        where = "the whole model on each GPU" if plan.gpus > 1 else "the whole model"
    elif plan.placement.replicas > 1:
        where = f"sharded over the {plan.spec.resources.gpus} GPUs of each node"
    else:
        where = f"sharded over all {plan.gpus} GPUs" + (f" of {nodes} nodes" if nodes > 1 else "")
    weights = f"{plan.spec.model.quantize} weights" if plan.spec.model.quantize else estimate.precision
    products = f" with products in {base.upper()}" if (base := plan.spec.train.base_compute) else ""
    return f"{where}, {weights}{products}, {saved}"


def _saved(recompute_every: int) -> str:
    if not recompute_every:
        return "activations saved"
    of_layers = "" if recompute_every == 1 else f" of 1 layer in {recompute_every}"
    return f"activations{of_layers} recomputed in the backward pass"


def memory_text(plan: RunPlan) -> str:
    """`70.6 GiB of 79.1 GiB a GPU with a row of 1,024 tokens, room for a micro-batch of 6,859 tokens`."""
    if plan.placement is None:
        return "not known for this model"
    estimate = plan.placement.estimate
    need = (
        f"{gibibytes(estimate.total)}"
        if plan.gpu.size is None
        else (f"{gibibytes(estimate.total)} of {gibibytes(plan.gpu.size)}")
    )
    what = "row" if plan.spec.train.tokens_per_micro_batch is None else "micro-batch"
    row = f"{need} a GPU with a {what} of {estimate.tokens:,} tokens"
    if plan.placement.fits is False:
        return f"{row}: does not fit"
    more = plan.most_tokens is not None and plan.most_tokens > estimate.tokens
    return f"{row}, room for a micro-batch of {plan.most_tokens:,} tokens" if more else row


def results_text(plan: RunPlan) -> str:
    """What a checkpoint and the adapter take in storage."""
    if plan.checkpoint_bytes is None or plan.adapter_bytes is None:
        return ""
    kept = plan.spec.train.keep_checkpoints
    all_of_it = "" if plan.storage_bytes is None else f"; about {decimal_size(plan.storage_bytes)} in all"
    return (
        f"adapter {decimal_size(plan.adapter_bytes)}; a checkpoint {decimal_size(plan.checkpoint_bytes)}, "
        f"of all but the last {kept} the adapter alone{all_of_it}"
    )


def steps_text(plan: RunPlan) -> str:
    """How many steps training takes, as far as that is known before the rows are tokenised."""
    train, ranks = plan.spec.train, plan.gpus
    batch = train.batch_size * train.gradient_accumulation * ranks
    epochs = plural(train.epochs, "epoch")
    most = "" if train.max_steps is None else f", at most {plural(train.max_steps, 'step')}"
    known = "" if plan.steps is None else f"about {plural(plan.steps, 'step')}: "
    shares = f"{train.batch_size} x {train.gradient_accumulation} x {plural(ranks, 'GPU')}"
    return f"{known}{epochs}{most}, {plural(batch, 'row')} a step ({shares})"


def speed_text(plan: RunPlan) -> str:
    """How fast, and what a step's time goes to; empty where the GPUs are not known or cannot hold the model."""
    speed = plan.speed
    if speed is None:
        return ""
    text = f"about {short_count(speed.tokens_per_second)} tokens a second"
    if speed.epoch_seconds is not None:
        epoch_tokens = short_count(speed.epoch_tokens or 0)
        text += f", {duration(speed.epoch_seconds)} an epoch of about {epoch_tokens} tokens"
    if speed.network is not None:
        text += f" over {NETWORK_TITLES[speed.network]}"
    shares = {name: seconds / speed.step.total for name, seconds in speed.step.parts.items()}
    shown = [f"{STEP_TITLES[name]} {share:.0%}" for name, share in shares.items() if share >= _SHOWN_SHARE]
    return f"{text}: {', '.join(shown)}"


def more_gpus_text(plan: RunPlan) -> str:
    """Up to how many GPUs more of them pay: `each doubling gives at least 1.5 times the speed up to 64 GPUs`."""
    if plan.speed is None or not plan.speed.worth:
        return ""
    counts = plan.speed.worth
    start = f"each doubling gives at least {speed_module.WORTH_DOUBLING} times the speed up to"
    if len(set(counts.values())) == 1:
        return f"{start} {plural(next(iter(counts.values())), 'GPU')}"
    over = (f"{plural(gpus, 'GPU')} over {NETWORK_TITLES[network]}" for network, gpus in counts.items())
    return f"{start} {', '.join(over)}"


def warnings(plan: RunPlan) -> list[str]:
    """What of the plan nobody knows, what is tried against it, and what the model was not made for."""
    excess = [] if plan.excess is None else [plan.excess]
    if plan.spec.train.base_compute == "fp8" and plan.gpu.speed is not None and plan.gpu.speed.fp8 is False:
        excess.append("train.baseCompute is 'fp8', and these GPUs do not multiply FP8: the run will be refused")
    if plan.placement is None:
        name = plan.spec.model.name
        return [
            f"the sizes of {name} are not known here: whether it fits is known when its config.json is there",
            *excess,
        ]
    if plan.placement.fits is None and plan.gpu is not gpus.NO_GPU:
        return ["the GPUs' memory is not known: whether the run fits is known when it starts", *excess]
    oversize = run_plan.oversize_text(plan)
    return excess if oversize is None else [oversize, *excess]


def _parts(plan: RunPlan) -> list[str]:
    if plan.placement is None:
        return []
    estimate = plan.placement.estimate
    rows = [[TITLES[name], gibibytes(size)] for name, size in estimate.parts() if size]
    return tables.table(["ON EACH GPU", "MEMORY"], [*rows, ["total", gibibytes(estimate.total)]], right=["MEMORY"])


def _enough(plan: RunPlan) -> list[str]:
    """The fewest GPUs of every size, with and without adapters on experts where that is open."""
    if run_plan.leaves_experts_open(plan):
        columns = {"WITH EXPERTS": run_plan.sizes(plan, True), "WITHOUT": run_plan.sizes(plan, False)}
    else:
        columns = {"FEWEST": run_plan.sizes(plan)}
    rows = [[f"{gb} GB", *(_count(found[gb]) for found in columns.values())] for gb in GPU_SIZES]
    return tables.table(["GPUS OF", *columns], rows)


def _count(enough: MinimumGpus | None) -> str:
    if enough is None:
        return ""
    each = gibibytes(enough.placement.estimate.total)
    on = f" on {enough.nodes} nodes" if enough.nodes > 1 else ""
    return f"{enough.gpus * enough.nodes}{on} ({each} each)"


def rows(plan: RunPlan) -> Iterator[tuple[str, str]]:
    """The lines of the plan that `submit` shows among its own."""
    if plan.placement is None:
        return
    yield "adapter", adapter_text(plan)
    yield "spread", spread_text(plan)
    yield "memory", memory_text(plan)
    if plan.speed is not None:
        yield "time", speed_text(plan)
