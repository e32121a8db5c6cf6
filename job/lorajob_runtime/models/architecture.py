"""A model's shapes, from its config.json alone: which matrices there are, how large, and which of them LoRA adapts.

Standard library only, so that a plan needs no weights and no torch. Names are those that transformers gives the
parameters, fused experts included. Only model types whose shapes were compared with transformers' own are read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.models import lora_targets

Group = Literal["attention", "dense", "shared", "experts", "router", "other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A frozen weight [outputs, inputs], or a stack [copies, outputs, inputs] with one for every expert."""

    path: str
    """Its place in its layer: `self_attn.q_proj`."""
    group: Group
    inputs: int
    outputs: int
    copies: int = 1
    bias: bool = False

    @property
    def name(self) -> str:
        """`self_attn.q_proj` -> `q_proj`."""
        return self.path.rsplit(".", 1)[-1]

    @property
    def parameters(self) -> int:
        return self.copies * self.inputs * self.outputs + (self.outputs if self.bias else 0)

    def part(self, shards: int) -> int:
        """Parameters of one part of `shards`: whole rows, of a stack whole experts, so some parts hold air."""
        bias = _share(self.outputs, shards) if self.bias else 0
        if self.copies > 1:
            return _share(self.copies, shards) * self.inputs * self.outputs + bias
        return _share(self.outputs, shards) * self.inputs + bias

    def adapter_parameters(self, rank: int) -> int:
        """A [rank, inputs] and B [outputs, rank], once for every copy."""
        return self.copies * rank * (self.inputs + self.outputs)


def _share(rows: int, shards: int) -> int:
    """Rows of each part: FSDP2 makes all parts as large as the first."""
    return -(-rows // shards)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One decoder layer. `vectors` are the parameters beside the matrices: weights of norms."""

    matrices: tuple[Matrix, ...]
    vectors: int
    chosen: int = 0
    """Routed experts that a token goes through; 0 in a dense layer."""

    @property
    def parameters(self) -> int:
        return sum(matrix.parameters for matrix in self.matrices) + self.vectors

    def part(self, shards: int) -> int:
        """Parameters of one part of `shards`, as those of its weights."""
        return sum(matrix.part(shards) for matrix in self.matrices) + _share(self.vectors, shards)

    def of(self, group: Group) -> tuple[Matrix, ...]:
        return tuple(matrix for matrix in self.matrices if matrix.group == group)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder of some layers between an embedding and a head, which are one matrix where `tied`.

    A plan asks for its sums hundreds of times, and looks things up by it: both are quick.
    """

    model_type: str
    vocabulary: int
    hidden: int
    heads: int
    key_heads: int
    head_dim: int
    head_norms: Literal["none", "head", "whole"]
    """Norms of queries and keys: none, within a head, or over all heads at once."""
    tied: bool
    layers: tuple[Layer, ...]

    def __hash__(self) -> int:
        # two models that share all of these are rare, and told apart by ==
        return hash((self.model_type, self.vocabulary, self.hidden, self.heads, len(self.layers)))

    @property
    def has_experts(self) -> bool:
        return any(layer.chosen for layer in self.layers)

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the head as well."""
        return self.vocabulary * self.hidden

    @property
    def ends(self) -> int:
        """Parameters outside the layers: embedding, head, and the last norm."""
        return self.embedding * (1 if self.tied else 2) + self.hidden

    @functools.cached_property
    def parameters(self) -> int:
        return self.ends + sum(layer.parameters for layer in self.layers)

    @property
    def active_parameters(self) -> int:
        """Those that work on one token: of the routed experts only the chosen ones."""
        idle = (
            matrix.parameters // matrix.copies * (matrix.copies - layer.chosen)
            for layer in self.layers
            for matrix in layer.of("experts")
        )
        return self.parameters - sum(idle)

    @functools.cached_property
    def largest_layer(self) -> int:
        """Parameters of the largest decoder layer."""
        return max(layer.parameters for layer in self.layers)

    @functools.cached_property
    def largest_matrix(self) -> int:
        """Parameters of the largest single tensor, a stack of experts being one."""
        return max(self.embedding, *(matrix.parameters for layer in self.layers for matrix in layer.matrices))

    def part(self, shards: int) -> int:
        """Parameters of one part of `shards` of the whole model."""
        return self.ends_part(shards) + sum(layer.part(shards) for layer in self.layers)

    def ends_part(self, shards: int) -> int:
        """Of embedding, head and last norm."""
        return _share(self.vocabulary, shards) * self.hidden * (1 if self.tied else 2) + _share(self.hidden, shards)

    def weights(self) -> tuple[Weight, ...]:
        """Everything that an adapter could go to: the layers' matrices and the head."""
        within = (
            Weight(dotted=f"model.layers.{number}.{matrix.path}", layer=number, matrix=matrix)
            for number, layer in enumerate(self.layers)
            for matrix in layer.matrices
        )
        head = Matrix(path="lm_head", group="other", inputs=self.hidden, outputs=self.vocabulary)
        return (*within, Weight(dotted=head.path, layer=None, matrix=head, tied=self.tied))


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """A matrix at its place in a model. `layer` is None for the head."""

    dotted: str
    layer: int | None
    matrix: Matrix
    tied: bool = False
    """Whether it is the embedding as well."""

    @property
    def group(self) -> Group:
        return self.matrix.group

    @property
    def is_stack(self) -> bool:
        return self.matrix.group == "experts"


@functools.lru_cache(maxsize=16)
def adapted(
    architecture: Architecture, lora: LoraSpec, *, experts: bool, model: str = "this model"
) -> tuple[Weight, ...]:
    """What gets an adapter. `experts` is what was decided for `lora.experts`.

    Raises ConfigError, in which `model` is what the model is called, for what it does not have.
    """
    return tuple(lora_targets.select(architecture.weights(), lora, experts=experts, model=model))


@functools.lru_cache(maxsize=16)
def adapter_parameters(architecture: Architecture, lora: LoraSpec, *, experts: bool) -> int:
    """Numbers that are trained. Raises ConfigError for targets that the model does not have."""
    return sum(each.matrix.adapter_parameters(lora.rank) for each in adapted(architecture, lora, experts=experts))


@functools.lru_cache(maxsize=16)
def wants_experts(architecture: Architecture, lora: LoraSpec) -> bool:
    """Whether routed experts are to get adapters where memory allows it: asked for, or as the recipe has it."""
    return lora_targets.asks_for_experts(architecture.weights(), lora)


def read(config: Mapping[str, Any]) -> Architecture | None:
    """The shapes in the values of a config.json; None for a model type that is not known here.

    Raises ModelError when a field that the shapes need is missing, not a number, or none that any model has.
    """
    config = config.get("text_config") or config
    # with classes of its own a repository calls its type as it likes, but the class is transformers' by name
    named = (config.get("architectures") or [""])[0]
    own = _TYPES.get(named)
    if own is None and named and (config.get("auto_map") or {}).get("AutoModelForCausalLM"):
        return None
    config = config if own is None else {**config, "model_type": own}
    maker = _MAKERS.get(str(config.get("model_type")))
    if maker is None:
        return None
    fields = _Fields(config)
    for name, most in _BOUNDS.items():
        if not 1 <= fields.count(name) <= most:
            raise ModelError(f"config.json has {name} {fields.count(name)}: it must be from 1 to {most}")
    return Architecture(
        model_type=str(config["model_type"]),
        vocabulary=fields.count("vocab_size"),
        hidden=fields.count("hidden_size"),
        heads=fields.count("num_attention_heads"),
        key_heads=fields.key_heads,
        head_dim=fields.head_dim,
        head_norms=_head_norms(fields),
        tied=fields.flag("tie_word_embeddings"),
        layers=tuple(maker(fields, number) for number in range(fields.count("num_hidden_layers"))),
    )


_BOUNDS = {"vocab_size": 2**31, "hidden_size": 2**20, "num_attention_heads": 2**16, "num_hidden_layers": 2**13}
"""Whoever wrote a config.json must not have a plan count without end."""


class _Fields:
    """The values of a config.json, read with complaints that name the field."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def count(self, *names: str, default: int | None = None, layer: int = 0) -> int:
        """The first of the fields that is there; of a list the value of one layer."""
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            if isinstance(value, list) and layer < len(value):
                value = value[layer]
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ModelError(f"config.json has {name} {value!r}: it must be a whole number")
            return value
        if default is None:
            raise ModelError(f"config.json of a {self.config.get('model_type')} model has no {names[0]}")
        return default

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.config.get(name)
        return default if value is None else bool(value)

    @property
    def key_heads(self) -> int:
        return self.count("num_key_value_heads", default=self.count("num_attention_heads"))

    @property
    def head_dim(self) -> int:
        return self.count("head_dim", default=self.count("hidden_size") // max(1, self.count("num_attention_heads")))


def _head_norms(fields: _Fields) -> Literal["none", "head", "whole"]:
    kind = fields.config["model_type"]
    if kind == "glm4_moe":
        return "head" if fields.flag("use_qk_norm") else "none"
    return cast(Literal["none", "head", "whole"], _HEAD_NORMS.get(kind, "none"))


_HEAD_NORMS = {
    "qwen3": "head",
    "qwen3_moe": "head",
    "hunyuan_v1_dense": "head",
    "hunyuan_v1_moe": "head",
    "minimax_m2": "whole",
}


def _attention(fields: _Fields) -> tuple[Matrix, ...]:
    hidden, kind = fields.count("hidden_size"), fields.config["model_type"]
    queries = fields.count("num_attention_heads") * fields.head_dim
    keys = fields.key_heads * fields.head_dim
    all_biased = kind not in ("qwen2", "glm4_moe", "minimax_m2", "mistral") and fields.flag("attention_bias")
    biased = all_biased or kind == "qwen2" or (kind == "glm4_moe" and fields.flag("attention_bias"))

    def matrix(name: str, inputs: int, outputs: int, bias: bool) -> Matrix:
        return Matrix(path=f"self_attn.{name}", group="attention", inputs=inputs, outputs=outputs, bias=bias)

    return (
        matrix("q_proj", hidden, queries, biased),
        matrix("k_proj", hidden, keys, biased),
        matrix("v_proj", hidden, keys, biased),
        matrix("o_proj", queries, hidden, all_biased),
    )


def _norms(fields: _Fields) -> int:
    """Weights of a layer's norms."""
    per_head = {
        "none": 0,
        "head": 2 * fields.head_dim,
        "whole": (fields.count("num_attention_heads") + fields.key_heads) * fields.head_dim,
    }
    return 2 * fields.count("hidden_size") + per_head[_head_norms(fields)]


def _mlp(path: str, group: Group, hidden: int, inner: int, *, bias: bool = False) -> tuple[Matrix, ...]:
    return (
        Matrix(path=f"{path}.gate_proj", group=group, inputs=hidden, outputs=inner, bias=bias),
        Matrix(path=f"{path}.up_proj", group=group, inputs=hidden, outputs=inner, bias=bias),
        Matrix(path=f"{path}.down_proj", group=group, inputs=inner, outputs=hidden, bias=bias),
    )


def _experts(path: str, count: int, hidden: int, inner: int) -> tuple[Matrix, ...]:
    return (
        Matrix(path=f"{path}.gate_up_proj", group="experts", inputs=hidden, outputs=2 * inner, copies=count),
        Matrix(path=f"{path}.down_proj", group="experts", inputs=inner, outputs=hidden, copies=count),
    )


def _dense_layer(fields: _Fields, number: int) -> Layer:
    inner = fields.count("intermediate_size", layer=number)
    bias = fields.config["model_type"] == "llama" and fields.flag("mlp_bias")
    mlp = _mlp("mlp", "dense", fields.count("hidden_size"), inner, bias=bias)
    return Layer(matrices=(*_attention(fields), *mlp), vectors=_norms(fields))


def _sparse_layer(fields: _Fields, router: str, count: int, chosen: int, inner: int, *others: Matrix) -> Layer:
    hidden = fields.count("hidden_size")
    return Layer(
        matrices=(
            *_attention(fields),
            Matrix(path=router, group="router", inputs=hidden, outputs=count),
            *others,
            *_experts("mlp.experts", count, hidden, inner),
        ),
        vectors=_norms(fields),
        chosen=chosen,
    )


def _qwen3_moe_layer(fields: _Fields, number: int) -> Layer:
    count = fields.count("num_experts", "num_local_experts")
    every = fields.count("decoder_sparse_step", default=1)
    if number in (fields.config.get("mlp_only_layers") or ()) or count == 0 or (number + 1) % max(1, every):
        return _dense_layer(fields, number)
    chosen, inner = fields.count("num_experts_per_tok"), fields.count("moe_intermediate_size")
    return _sparse_layer(fields, "mlp.gate", count, chosen, inner)


def _glm4_moe_layer(fields: _Fields, number: int) -> Layer:
    if number < fields.count("first_k_dense_replace", default=1):
        return _dense_layer(fields, number)
    inner = fields.count("moe_intermediate_size")
    shared = inner * fields.count("n_shared_experts", default=1)
    count, chosen = fields.count("n_routed_experts", "num_local_experts"), fields.count("num_experts_per_tok")
    hidden = fields.count("hidden_size")
    return _sparse_layer(
        fields, "mlp.gate", count, chosen, inner, *_mlp("mlp.shared_experts", "shared", hidden, shared)
    )


def _hunyuan_moe_layer(fields: _Fields, number: int) -> Layer:
    count = fields.count("num_experts", "num_local_experts", layer=number)
    chosen = fields.count("moe_topk", "num_experts_per_tok", default=1, layer=number)
    hidden, inner = fields.count("hidden_size"), fields.count("intermediate_size")
    shared = _mlp("mlp.shared_mlp", "shared", hidden, inner)
    return _sparse_layer(fields, "mlp.gate.wg", count, chosen, inner, *shared)


def _minimax_layer(fields: _Fields, number: int) -> Layer:
    count, chosen = fields.count("num_local_experts", "num_experts"), fields.count("num_experts_per_tok")
    return _sparse_layer(fields, "mlp.gate", count, chosen, fields.count("intermediate_size", layer=number))


_MAKERS: dict[str, Callable[[_Fields, int], Layer]] = {
    "llama": _dense_layer,
    "mistral": _dense_layer,
    "qwen2": _dense_layer,
    "qwen3": _dense_layer,
    "qwen3_moe": _qwen3_moe_layer,
    "hunyuan_v1_dense": _dense_layer,
    "hunyuan_v1_moe": _hunyuan_moe_layer,
    "glm4_moe": _glm4_moe_layer,
    "minimax_m2": _minimax_layer,
}

_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Glm4MoeForCausalLM": "glm4_moe",
    "HunYuanMoEV1ForCausalLM": "hunyuan_v1_moe",
    "HunYuanDenseV1ForCausalLM": "hunyuan_v1_dense",
    "MiniMaxM2ForCausalLM": "minimax_m2",
}
"""Classes of transformers' own. Their repositories may bring code all the same, and another name for the type."""
