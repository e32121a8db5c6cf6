"""What a model family says of itself: the types of its models, its chat template, and what is peculiar to its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lorajob_runtime.models.families.fields import Fields
from lorajob_runtime.models.families.layers import Attention, Mlp, dense_mlp

ATTENTION_PROJECTIONS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
MLP_PROJECTIONS = frozenset({"gate_proj", "up_proj", "down_proj"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertNames:
    """What the layers with routed experts are called: by transformers, in the files on the hubs, and by vLLM.

    `router` is the router's module within transformers' block. `block`, `gate`, `up` and `down` are the hubs' names of
    the block and of one expert's projections. `vllm_linear`: the last parts of all other names that vLLM's model of
    this type takes adapters of. `vllm_note`: what a user should know before serving an adapter of experts with vLLM.
    """

    vllm_linear: frozenset[str]
    router: str = "gate"
    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    vllm_note: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelType:
    """One `model_type` of transformers, whose shapes were compared with those that transformers makes.

    `class_name` is its causal language model there. `mlp` is asked for every layer by number. `experts`: None for a
    type without routed experts. `renamed_fields`: a field of config.json as transformers calls it -> as the family's
    own repositories do.
    """

    name: str
    class_name: str
    attention: Callable[[Fields], Attention]
    mlp: Callable[[Fields, int], Mlp] = dense_mlp
    experts: ExpertNames | None = None
    renamed_fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatFormat:
    """What a family's chat template does not say itself; everything else is asked of the template by rendering.

    A template that has all `signatures` is of this family; without signatures none is. `end_of_turn` is for templates
    that write nothing after an answer: what the model must produce to hand over, and `end_of_call` what after a tool
    call. `switch_after_answer`: the thinking switch also writes behind a finished answer.
    """

    signatures: tuple[str, ...] = ()
    end_of_turn: str | None = None
    end_of_call: str | None = None
    switch_after_answer: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TiktokenFile:
    """A tokenizer that a repository ships as a file of byte strings by rank, and code that reads it.

    `class_name` is the class of that code, as tokenizer_config.json names it. `split_pattern` cuts a text into the
    pieces that are merged on their own. `control_tokens` take the ids behind those of the file, in this order.
    """

    file: str
    class_name: str
    split_pattern: str
    control_tokens: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """All that is known of one family. `name` is that of the catalog's entries (`family`).

    `gguf_splits_digits`: values of GGUF's `tokenizer.ggml.pre` for which the tokenizer takes every digit for itself,
    which transformers' conversion from GGUF leaves out.
    """

    name: str
    model_types: tuple[ModelType, ...] = ()
    chat: ChatFormat = ChatFormat()
    tiktoken: TiktokenFile | None = None
    gguf_splits_digits: tuple[str, ...] = ()
