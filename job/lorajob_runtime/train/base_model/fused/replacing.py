"""Has the modules of a base model compute by the fused functions, where a trial shows that these give its own numbers.

No model is known by its name. A module of the right shape is tried with random numbers beside its own class: whatever
differs by more than rounding stays as it is. Their weights are not touched, so they may lie in parts on several GPUs.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from lorajob_runtime.train.base_model.fused import rms_norm, rotary, swiglu

RMS_NORM, SWIGLU, ROTARY = "rms_norm", "swiglu", "rotary"

_ROTATES = "apply_rotary_pos_emb"
"""What transformers' attention calls for rotary positions, in every model that has them in the rotate-half form."""

Found = tuple[str, nn.Module, type[nn.Module]]
"""A function's name, a module, and the class that has the module compute by it."""


def found(model: nn.Module) -> tuple[str, ...]:
    """Names of the functions that some module of a frozen model can compute by, sorted."""
    return tuple(sorted({name for name, _, _ in _replacements(model)}))


def use(model: nn.Module, names: Iterable[str]) -> None:
    """Has all modules compute by these functions that can, in place."""
    wanted = set(names)
    for name, module, replacement in list(_replacements(model)):
        if name in wanted:
            module.__class__ = replacement


def _replacements(model: nn.Module) -> Iterator[Found]:
    tried: dict[tuple[type, float | None, type], tuple[str, type[nn.Module]] | None] = {}
    for module in model.modules():
        # what a class does may follow from its epsilon, or from the activation that is a child of it
        kind = (type(module), _epsilon(module), type(module._modules.get("act_fn")))
        if kind not in tried:
            tried[kind] = _replacement(module)
        one = tried[kind]
        if one is not None:
            yield one[0], module, one[1]


@torch.no_grad()
def _replacement(module: nn.Module) -> tuple[str, type[nn.Module]] | None:
    original = type(module)
    if _is_norm(module):
        own = _subclass(original, _norm_forward(original))
        return (RMS_NORM, own) if _same_norm(module, own) else None
    if _is_gated_mlp(module):
        own = _subclass(original, _mlp_forward)
        return (SWIGLU, own) if _same_mlp(module, own) else None
    forward = original.forward
    if isinstance(forward, types.FunctionType) and _ROTATES in forward.__code__.co_names:
        plain: Any = forward.__globals__.get(_ROTATES)
        if _rotates_halves(plain):
            return ROTARY, _subclass(original, _calling(forward, _rotary(plain)))
    return None


def _subclass(original: type[nn.Module], forward: Callable[..., Any]) -> type[nn.Module]:
    return cast(type[nn.Module], type(f"Fused{original.__name__}", (original,), {"forward": forward}))


def _epsilon(module: nn.Module) -> float | None:
    for name in ("variance_epsilon", "eps"):
        if isinstance(value := module.__dict__.get(name), float):
            return value
    return None


def _is_norm(module: nn.Module) -> bool:
    """Whether it is a module of one frozen vector and an epsilon, and of nothing else."""
    weight = module._parameters.get("weight")
    return (
        weight is not None
        and weight.dim() == 1
        and not weight.requires_grad
        and len(module._parameters) == 1
        and not module._modules
        and not module._buffers
        and _epsilon(module) is not None
        and _takes_one_tensor(module)
    )


def _takes_one_tensor(module: nn.Module) -> bool:
    """Whether it is called with its input alone: what a norm with a gate does without one tells nothing of it."""
    return len(inspect.signature(module.forward).parameters) == 1


def _norm_forward(original: type[nn.Module]) -> Callable[[Any, Tensor], Tensor]:
    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        if hidden_states.dtype != self.weight.dtype:
            return cast(Tensor, original.forward(self, hidden_states))
        return rms_norm.rms_norm(hidden_states, self.weight, cast(float, _epsilon(self)))

    return forward


def _same_norm(module: nn.Module, own: type[nn.Module]) -> bool:
    weight = cast(Tensor, module._parameters["weight"])
    width = weight.shape[0]
    # a weight that tells y * w from y * (1 + w), and rows small enough that epsilon counts
    drawn = torch.linspace(0.5, 1.5, width, dtype=weight.dtype, device=_device(weight))
    trial = _beside(module, _parameters={"weight": nn.Parameter(drawn, requires_grad=False)})
    sizes = torch.tensor([[1e-3], [1.0], [30.0]], device=drawn.device)
    rows = (_numbers(3, width).to(drawn.device) * sizes).to(weight.dtype)
    return _agree(lambda kind: kind.forward(trial, rows), type(module), own)


def _is_gated_mlp(module: nn.Module) -> bool:
    parts = {"gate_proj", "up_proj", "down_proj", "act_fn"}
    return set(module._modules) == parts and not module._parameters and _takes_one_tensor(module)


def _mlp_forward(self: Any, x: Tensor) -> Tensor:
    return cast(Tensor, self.down_proj(swiglu.swiglu(self.gate_proj(x), self.up_proj(x))))


def _same_mlp(module: nn.Module, own: type[nn.Module]) -> bool:
    """Tried with small matrices in place of the model's own."""
    sizes = {"gate_proj": (6, 10), "up_proj": (6, 10), "down_proj": (10, 6)}
    matrices: dict[str, nn.Module | None] = {}
    for seed, (name, (inputs, outputs)) in enumerate(sizes.items()):
        matrices[name] = nn.Linear(inputs, outputs, bias=False, dtype=torch.float32, device="cpu")
        cast(nn.Linear, matrices[name]).weight.copy_(_numbers(outputs, inputs, seed=seed))
    trial = _beside(module, _modules=matrices | {"act_fn": module._modules["act_fn"]})
    rows = 3 * _numbers(2, 5, 6)
    return _agree(lambda kind: kind.forward(trial, rows), type(module), own)


def _beside(module: nn.Module, **others: Any) -> nn.Module:
    """A module like another but for some of its attributes. Sharded ones do not take to being copied."""
    made = object.__new__(type(module))
    made.__dict__.update(module.__dict__ | others)
    return made


def _rotary(plain: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    def apply_rotary_pos_emb(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        if unsqueeze_dim != 1 or not q.dtype == k.dtype == cos.dtype == sin.dtype:
            return cast(tuple[Tensor, Tensor], plain(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim))
        return rotary.rotate(q, k, cos.unsqueeze(1), sin.unsqueeze(1))

    return apply_rotary_pos_emb


def _rotates_halves(plain: Any) -> bool:
    """Whether a model's own function is the rotate-half form. Of fewer angles than numbers it may know nothing."""
    if not callable(plain) or list(inspect.signature(plain).parameters) != ["q", "k", "cos", "sin", "unsqueeze_dim"]:
        return False
    query, key = _numbers(2, 4, 5, 16), _numbers(2, 2, 5, 16, seed=1)
    cos, sin = _numbers(2, 5, 16, seed=2), _numbers(2, 5, 16, seed=3)
    own = _rotary(plain)
    if not _agree(lambda function: torch.cat(function(query, key, cos, sin), 1), plain, own):
        return False
    try:
        plain(query, key, cos[..., :8], sin[..., :8])
    except (RuntimeError, ValueError):
        return True
    return _agree(lambda function: torch.cat(function(query, key, cos[..., :8], sin[..., :8]), 1), plain, own)


def _calling(forward: types.FunctionType, function: Callable[..., Any]) -> types.FunctionType:
    """The same code, in which the name of transformers' function for rotary positions stands for another one."""
    names = forward.__globals__ | {_ROTATES: function}
    made = types.FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    made.__kwdefaults__ = forward.__kwdefaults__
    return made


def _agree(result: Callable[[Any], Tensor], plain: Any, own: Any) -> bool:
    """Whether both give the same but for rounding. What raises anything with such numbers is another thing."""
    try:
        expected, got = result(plain), result(own)
    except Exception:  # noqa: BLE001 a stranger's forward pass may raise whatever it likes
        return False
    if expected.dtype != got.dtype or expected.shape != got.shape:
        return False
    # the plain way rounds more than once
    tolerance = max(1e-5, 4 * torch.finfo(got.dtype).eps)
    return torch.allclose(got.float(), expected.float(), rtol=tolerance, atol=tolerance)


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    """The same numbers each time, from a generator of their own: the run's random draws stay as they are."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _device(weight: Tensor) -> torch.device:
    # a part of a sharded weight, or one that has no numbers yet
    return weight.device if weight.device.type != "meta" else torch.device("cpu")
