"""The shapes of a model: which matrices its layers have, how large they are, and how many parameters that makes.

Names are those that transformers gives the parameters, fused experts included.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

Group = Literal["attention", "dense", "shared", "experts", "router", "other"]

HeadNorms = Literal["none", "head", "whole"]
"""Norms of queries and keys: none, within a head, or over all heads at once."""

EXPERT_STACKS = ("gate_up_proj", "down_proj")
"""What transformers calls the two weights of a layer that hold those of all its routed experts."""


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

    def shard_size(self, shards: int) -> int:
        """Parameters of one of `shards` shards: whole rows, of a stack whole experts, so some shards hold padding."""
        bias = _rows_of_shard(self.outputs, shards) if self.bias else 0
        if self.copies > 1:
            return _rows_of_shard(self.copies, shards) * self.inputs * self.outputs + bias
        return _rows_of_shard(self.outputs, shards) * self.inputs + bias

    def adapter_parameters(self, rank: int) -> int:
        """A [rank, inputs] and B [outputs, rank], once for every copy."""
        return self.copies * rank * (self.inputs + self.outputs)


def _rows_of_shard(rows: int, shards: int) -> int:
    """Rows of each shard: FSDP2 makes all shards as large as the first."""
    return -(-rows // shards)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One decoder layer. `vectors` are the parameters beside the matrices: weights of norms."""

    matrices: tuple[Matrix, ...]
    vectors: int
    experts_per_token: int = 0
    """Routed experts that a token goes through; 0 in a dense layer."""

    @property
    def parameters(self) -> int:
        return sum(matrix.parameters for matrix in self.matrices) + self.vectors

    def shard_size(self, shards: int) -> int:
        """Parameters of one of `shards` shards of the layer."""
        return sum(matrix.shard_size(shards) for matrix in self.matrices) + _rows_of_shard(self.vectors, shards)

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
    head_norms: HeadNorms
    tied: bool
    layers: tuple[Layer, ...]

    def __hash__(self) -> int:
        # two models that share all of these are rare, and told apart by ==
        return hash((self.model_type, self.vocabulary, self.hidden, self.heads, len(self.layers)))

    @property
    def has_experts(self) -> bool:
        return any(layer.experts_per_token for layer in self.layers)

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of the head as well."""
        return self.vocabulary * self.hidden

    @property
    def embedding_and_head(self) -> int:
        """Parameters outside the layers: embedding, head, and the last norm."""
        return self.embedding * (1 if self.tied else 2) + self.hidden

    @functools.cached_property
    def parameters(self) -> int:
        return self.embedding_and_head + sum(layer.parameters for layer in self.layers)

    @property
    def active_parameters(self) -> int:
        """Those that work on one token: of the routed experts only those that it goes through."""
        idle = (
            matrix.parameters // matrix.copies * (matrix.copies - layer.experts_per_token)
            for layer in self.layers
            for matrix in layer.of("experts")
        )
        return self.parameters - sum(idle)

    @functools.cached_property
    def largest_matrix(self) -> int:
        """Parameters of the largest single tensor, a stack of experts being one."""
        return max(self.embedding, *(matrix.parameters for layer in self.layers for matrix in layer.matrices))

    def shard_size(self, shards: int) -> int:
        """Parameters of one of `shards` shards of the whole model."""
        layers = sum(layer.shard_size(shards) for layer in self.layers)
        return self.embedding_and_head_shard_size(shards) + layers

    def embedding_and_head_shard_size(self, shards: int) -> int:
        """Parameters of one of `shards` shards of embedding, head and last norm."""
        matrices = _rows_of_shard(self.vocabulary, shards) * self.hidden * (1 if self.tied else 2)
        return matrices + _rows_of_shard(self.hidden, shards)

    def weights(self) -> tuple[Weight, ...]:
        """Everything that an adapter could go to: the layers' matrices and the head."""
        within = (
            Weight(full_name=f"model.layers.{number}.{matrix.path}", layer=number, matrix=matrix)
            for number, layer in enumerate(self.layers)
            for matrix in layer.matrices
        )
        head = Matrix(path="lm_head", group="other", inputs=self.hidden, outputs=self.vocabulary)
        return (*within, Weight(full_name=head.path, layer=None, matrix=head, tied=self.tied))


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """A matrix at its place in a model. `layer` is None for the head."""

    full_name: str
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
