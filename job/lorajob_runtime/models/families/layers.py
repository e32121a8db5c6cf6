"""The parts of a decoder layer that families share: attention, norms, a plain MLP, a block of routed experts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lorajob_runtime.models.families.fields import Fields
from lorajob_runtime.models.shapes import EXPERT_STACKS, Group, HeadNorms, Layer, Matrix


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """What tells the attention of one model type from that of another; the sizes are in every config.json."""

    qkv_bias: bool = False
    output_bias: bool = False
    head_norms: HeadNorms = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mlp:
    """The matrices of a layer behind its attention. `experts_per_token` is 0 where there are no routed experts."""

    matrices: tuple[Matrix, ...]
    experts_per_token: int = 0


def biased_as_configured(fields: Fields) -> Attention:
    """Biases on all four projections where `attention_bias` says so."""
    biased = fields.flag("attention_bias")
    return Attention(qkv_bias=biased, output_bias=biased)


def biased_with_head_norms(fields: Fields) -> Attention:
    """Biases as configured, and norms of each head's queries and keys."""
    return replace(biased_as_configured(fields), head_norms="head")


def dense_mlp(fields: Fields, layer: int, *, bias: bool = False) -> Mlp:
    """Gate, up and down of `intermediate_size`."""
    inner = fields.count("intermediate_size", layer=layer)
    return Mlp(matrices=gated_matrices("mlp", "dense", fields.count("hidden_size"), inner, bias=bias))


def sparse_mlp(
    fields: Fields, *, router: str, experts: int, per_token: int, inner: int, shared: tuple[Matrix, ...] = ()
) -> Mlp:
    """A block of `experts` routed experts of `inner` numbers inside; a token goes through `per_token` of them.

    `router` is the router's place in the layer, `shared` what every token goes through beside its experts.
    """
    hidden = fields.count("hidden_size")
    gate_up, down = (f"mlp.experts.{name}" for name in EXPERT_STACKS)
    return Mlp(
        matrices=(
            Matrix(path=router, group="router", inputs=hidden, outputs=experts),
            *shared,
            Matrix(path=gate_up, group="experts", inputs=hidden, outputs=2 * inner, copies=experts),
            Matrix(path=down, group="experts", inputs=inner, outputs=hidden, copies=experts),
        ),
        experts_per_token=per_token,
    )


def gated_matrices(path: str, group: Group, hidden: int, inner: int, *, bias: bool = False) -> tuple[Matrix, ...]:
    """The three matrices of a gated MLP at `path`."""
    return (
        Matrix(path=f"{path}.gate_proj", group=group, inputs=hidden, outputs=inner, bias=bias),
        Matrix(path=f"{path}.up_proj", group=group, inputs=hidden, outputs=inner, bias=bias),
        Matrix(path=f"{path}.down_proj", group=group, inputs=inner, outputs=hidden, bias=bias),
    )


def decoder_layer(fields: Fields, attention: Attention, mlp: Mlp) -> Layer:
    """A whole layer: attention, the MLP, and the weights of its norms."""
    return Layer(
        matrices=(*_attention_matrices(fields, attention), *mlp.matrices),
        vectors=_norm_weights(fields, attention),
        experts_per_token=mlp.experts_per_token,
    )


def _attention_matrices(fields: Fields, attention: Attention) -> tuple[Matrix, ...]:
    hidden = fields.count("hidden_size")
    queries = fields.count("num_attention_heads") * fields.head_dim
    keys = fields.key_heads * fields.head_dim

    def matrix(name: str, inputs: int, outputs: int, bias: bool) -> Matrix:
        return Matrix(path=f"self_attn.{name}", group="attention", inputs=inputs, outputs=outputs, bias=bias)

    return (
        matrix("q_proj", hidden, queries, attention.qkv_bias),
        matrix("k_proj", hidden, keys, attention.qkv_bias),
        matrix("v_proj", hidden, keys, attention.qkv_bias),
        matrix("o_proj", queries, hidden, attention.output_bias),
    )


def _norm_weights(fields: Fields, attention: Attention) -> int:
    of_heads = {
        "none": 0,
        "head": 2 * fields.head_dim,
        "whole": (fields.count("num_attention_heads") + fields.key_heads) * fields.head_dim,
    }
    return 2 * fields.count("hidden_size") + of_heads[attention.head_norms]
