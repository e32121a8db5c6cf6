"""Checks of single parts on the card against references: `python -m gpu.checks ceilings`, `all`, or names of some."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from gpu.random_model import qwen3, random_base, started
from gpu.results import DEVICE, HAS_GPU, attempt, milliseconds, relative_error, say, synchronize
from lorajob_runtime.models import memory_plan
from lorajob_runtime.models.architecture import read as read_architecture
from lorajob_runtime.models.lora_targets import AUTO_TARGETS
from lorajob_runtime.train import loss
from lorajob_runtime.train.base_model import attention
from lorajob_runtime.train.step import train_step

BF16 = torch.bfloat16


def ceilings() -> None:
    """What the card gives at the most: products and copies."""
    size = 8192 if HAS_GPU else 256
    left, right = (torch.randn(size, size, device=DEVICE, dtype=BF16) for _ in range(2))
    took = milliseconds(lambda: left @ right)
    say("ceiling", f"bf16 product of {size}, TFLOP/s", True, value=2 * size**3 / took / 1e9)
    source = torch.empty(2**30 if HAS_GPU else 2**20, device=DEVICE, dtype=torch.uint8)
    target = torch.empty_like(source)
    took = milliseconds(lambda: target.copy_(source))
    say("ceiling", "copy, read and written TB/s", True, value=2 * source.numel() / took / 1e9)


def documents() -> None:
    """Attention within documents beside attention in fp32: forward, and all gradients, at odd lengths."""
    lengths = [1, 7, 64, 129, 300, 512, 33] if HAS_GPU else [1, 7, 33]
    query, key, value, bounds = _documents(lengths)
    direction = torch.randn_like(query)

    def gradients() -> list[Tensor]:
        output = _document_attention(query, key, value, bounds, max(lengths))
        return [output, *torch.autograd.grad(output, (query, key, value), direction)]

    exact = [item.detach().float().requires_grad_() for item in (query, key, value)]
    parts = [
        F.scaled_dot_product_attention(
            *(item[:, start:end].transpose(1, 2) for item in exact), is_causal=True, enable_gqa=True
        ).transpose(1, 2)
        for start, end in itertools.pairwise(bounds.tolist())
    ]
    output = torch.cat(parts, 1)
    expected = [output, *torch.autograd.grad(output, exact, direction.float())]
    found, again = gradients(), gradients()
    errors = [relative_error(*pair) for pair in zip(found, expected, strict=True)]
    repeats = all(torch.equal(*pair) for pair in zip(found, again, strict=True))
    say("check", "documents' attention: output, dq, dk, dv", max(errors) < 1.5e-2, errors=errors, repeats=repeats)


def new_shapes() -> None:
    """What a shape never seen before costs: a kernel that builds something for each would show here."""
    shapes = [[90 + 7 * i + j for j in range(14 + i % 3)] for i in range(6)] if HAS_GPU else [[5, 9], [7, 3, 4]]
    attention.register()
    first, later = [], []
    for lengths in shapes:
        query, key, value, bounds = _documents(lengths)
        longest = max(lengths)

        def work(inputs: Sequence[Tensor] = (query, key, value, bounds), longest: int = longest) -> None:
            *projections, edges = inputs
            output = _document_attention(*projections, edges, longest)
            torch.autograd.grad(output, projections, torch.ones_like(output))

        synchronize()
        began = time.perf_counter()
        work()
        synchronize()
        first.append(1e3 * (time.perf_counter() - began))
        later.append(milliseconds(work, repeats=5, warm=1))
    flash = attention.has_flash(DEVICE, BF16)
    passed = not HAS_GPU or max(first[1:]) < 5
    say("check", "a new shape of documents, forward and backward ms", passed, flash=flash, first=first, later=later)


def head() -> None:
    """The loss of target tokens and its gradient beside cross entropy, at Qwen3's vocabulary."""
    tokens, width, vocabulary = (700, 4096, 151936) if HAS_GPU else (40, 64, 1000)
    hidden = (torch.randn(tokens, width, device=DEVICE) * 0.5).to(BF16).requires_grad_()
    weight = (torch.randn(vocabulary, width, device=DEVICE) * 0.02).to(BF16)
    labels = torch.randint(0, vocabulary, (tokens,), device=DEVICE)
    found = loss.head_loss(hidden, weight, labels) / 731
    (gradient,) = torch.autograd.grad(found, hidden)
    plain = F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum") / 731
    (expected,) = torch.autograd.grad(plain, hidden)
    # 1 where nothing scales all gradients by the same factor
    scale = float((gradient.float() * expected.float()).sum() / (expected.float() ** 2).sum())
    difference, error = relative_error(found, plain), relative_error(gradient, expected)
    passed = difference < 1e-3 and error < 2e-2 and abs(scale - 1) < 5e-3
    say(
        "check",
        "loss of the head, its gradient, and that one's scale",
        passed,
        loss=difference,
        error=error,
        scale=scale,
    )


def layers() -> None:
    """Three steps on two layers of the true size in bf16, beside plain PEFT in fp32: losses and norms of gradients."""
    config = qwen3(2)
    lengths = [90, 33, 150, 64] * 4 if HAS_GPU else [9, 5, 12, 7] * 4
    lora = {"rank": 8, "alpha": 32, "dropout": 0.0}
    session = started(
        config, lengths, lora=lora, train={"precision": "bf16", "learningRate": 1e-3, "scheduler": "constant"}
    )
    found = [train_step(session, step) for step in (1, 2, 3)]
    torch.manual_seed(session.job.spec.train.seed)
    plain = _plain(random_base(config, BF16).float(), lora)
    trained = [item for item in plain.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0)
    losses, norms = [], []
    for step in (1, 2, 3):
        rows = [session.rows.row(number) for number in session.steps.rows_of(step)]
        targets = sum(int(mask.sum()) for _, mask in rows)
        optimizer.zero_grad()
        total = 0.0
        for ids, mask in rows:
            tokens = torch.tensor(ids, device=DEVICE).long().unsqueeze(0)
            labels = tokens.masked_fill(~torch.tensor(mask, device=DEVICE), -100)
            logits = plain(input_ids=tokens).logits.float()
            part = F.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum") / targets
            part.backward()
            total += float(part.detach())
        losses.append(total)
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained, session.job.spec.train.max_grad_norm)))
        optimizer.step()
    worst_loss = max(abs(each.loss - loss) / loss for each, loss in zip(found, losses, strict=True))
    worst_norm = max(abs(each.grad_norm - norm) / norm for each, norm in zip(found, norms, strict=True))
    passed = worst_loss < 2e-3 and worst_norm < 5e-2
    say(
        "check", "two layers beside plain PEFT in fp32: loss, gradient's norm", passed, loss=worst_loss, norm=worst_norm
    )


def experts() -> None:
    """Experts' adapters on the card's grouped product beside PEFT's own way, with idle experts and several ranks."""
    import test_moe_factored as moe

    from lorajob_runtime.train.lora import experts as factored

    for dtype, bar in ((BF16, 3e-2), (torch.float32, 1e-4)):
        for rank, used in ((4, moe.COUNT), (8, moe.CHOSEN), (12, moe.COUNT)):
            inputs = tuple(item.to(DEVICE) for item in moe.routed(used=used, dtype=dtype))
            plain, ours = (moe.block(rank=rank, dtype=dtype).to(DEVICE) for _ in range(2))
            factored.factor(ours)
            with DEVICE:
                found, expected = moe.results(ours, inputs), moe.results(plain, inputs)
            worst = max(relative_error(found[name], value) for name, value in expected.items())
            name = f"experts in {str(dtype).removeprefix('torch.')}, rank {rank}, {used} used"
            say("check", name, worst < bar, worst=worst)


def memory() -> None:
    """The peak of a step above the model's own, beside what `lorajob plan` counts for it."""
    config, tokens = qwen3(4), 2048 if HAS_GPU else 64
    shapes = read_architecture(config.to_dict())
    if shapes is None:
        raise RuntimeError("the shapes of Qwen3 are not known")
    for dropout in (0.1, 0.0):
        session = started(
            config, [tokens // 16] * 16, lora={"dropout": dropout}, train={"gradientCheckpointing": False}
        )
        train_step(session, 1)
        if not HAS_GPU:
            say("check", f"a step for plan's activations, dropout {dropout}", True, peak="there is no card to measure")
            continue
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        train_step(session, 2)
        peak = torch.cuda.max_memory_allocated() - before
        counted = memory_plan.estimate(shapes, session.job.spec, gpus=1, tokens=tokens)
        share = (counted.activations + counted.transient) / peak
        say(
            "check",
            f"plan's activations / the step's peak, dropout {dropout}",
            0.9 < share < 1.25,
            share=share,
            peak_gb=peak / 1e9,
        )


def _plain(base: nn.Module, lora: dict[str, float]) -> nn.Module:
    config = LoraConfig(
        r=int(lora["rank"]),
        lora_alpha=int(lora["alpha"]),
        lora_dropout=lora["dropout"],
        target_modules=list(AUTO_TARGETS),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config).train()


def _documents(lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query [1, tokens, 32, 128], key and value of 8 heads, and the bounds of the documents."""
    query, key, value = (
        torch.randn(1, sum(lengths), heads, 128, device=DEVICE, dtype=BF16, requires_grad=True) for heads in (32, 8, 8)
    )
    bounds = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=DEVICE)
    return query, key, value, bounds


def _document_attention(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int) -> Tensor:
    heads_first = (item.transpose(1, 2) for item in (query, key, value))
    output, _ = attention.document_attention(
        nn.Identity(), *heads_first, None, scaling=128**-0.5, cu_seq_lens_q=bounds, max_length_q=longest
    )
    return output


CHECKS: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (ceilings, documents, new_shapes, head, layers, experts, memory)
}


def main(asked: Sequence[str]) -> None:
    """Runs checks by name; `all` is every one but the ceilings."""
    names = [name for name in CHECKS if name != "ceilings"] if list(asked) == ["all"] else asked
    for name in names:
        attempt("check", name, CHECKS[name])


if __name__ == "__main__":
    main(sys.argv[1:])
