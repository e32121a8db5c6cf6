"""What we lean on in transformers: models and how they are loaded."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from leanings import TOKENS, adapted, leaned_on, model, parameters
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

import families


@leaned_on(
    "transformers: experts of all three mixtures are the same two stacks of weights, called with (x, index, weights)",
    by="train/lora/experts.py, train/lora/inventory.py, models/families/layers.py",
    why="others than silu(gate) * up, or another order of gate and up, keep PEFT's slow way",
)
def fused_experts() -> None:
    from lorajob_runtime.train.lora import experts

    for family in families.MOE_FAMILIES:
        found = next(module for name, module in model(family).named_modules() if name.endswith(".experts"))
        assert experts._is_plain(found), family
        assert found.gate_up_proj.shape[1] == 2 * found.down_proj.shape[2]
        assert len(inspect.signature(type(found).forward).parameters) == 4


@leaned_on(
    "transformers: names of routers and shared experts, beside `experts` in the same block",
    by="train/lora/inventory.py, models/families/layers.py",
    why="a weight's part of the model is known by its path",
)
def names_in_blocks() -> None:
    from lorajob_runtime.train.lora import inventory

    wanted = {
        "hunyuan": {"attention", "shared", "experts", "router", "other"},
        "glm-4.5": {"attention", "dense", "shared", "experts", "router", "other"},
        "minimax-m2": {"attention", "experts", "router", "other"},
    }
    for family, groups in wanted.items():
        assert {target.group for target in inventory.inventory(model(family))} == groups, family


@leaned_on(
    "transformers: attention functions by name, called with what was given to the model",
    by="train/base_model/attention.py, train/base_model/forward.py",
    why="documents end to end are kept apart by cu_seq_lens_q, which the model must hand through, and no mask is made",
)
def attention_interface() -> None:
    from transformers import AttentionInterface

    from lorajob_runtime.train.base_model import forward as models

    seen: list[Any] = []

    def watched(
        module: nn.Module, query: Any, key: Any, value: Any, mask: Any, *, scaling: float, **others: Any
    ) -> Any:
        names = ("cu_seq_lens_q", "max_length_q", "document_bounds")
        seen.append((mask, *(others.get(name) for name in names), scaling))
        return torch.zeros_like(query).transpose(1, 2), None

    AttentionInterface.register("leaned_on", watched)
    for family in families.FAMILIES:
        tried = model.__wrapped__(family)
        tried.set_attn_implementation("leaned_on")
        assert tried.config._attn_implementation == "leaned_on"
        seen.clear()
        tried(**models.packed_inputs(TOKENS, [5, 7]))
        assert len(seen) == families.LAYERS, family
        mask, bounds, longest, numbers, _ = seen[0]
        assert (mask, bounds.tolist(), longest, numbers) == (None, [0, 5, 12], 7, [0, 5, 12]), family


@leaned_on(
    "transformers: the model calls its head with the hidden states and nothing else",
    by="train/base_model/forward.py",
    why="the head's forward is replaced for a call, so that logits exist for target tokens only",
)
def call_of_the_head() -> None:
    from lorajob_runtime.train.base_model import forward as models

    for family in families.FAMILIES:
        hidden = models.hidden_states(model(family), TOKENS, [12])
        assert hidden.shape == (1, 12, 32), family
        assert model(family).get_output_embeddings() is model(family).lm_head


@leaned_on(
    "transformers generate: synced_gpus, a streamer whose first put is the prompt, criteria that give a bool a row",
    by="generate/generator.py, train/answering.py, train/samples.py",
    why="answers are streamed without the prompt and can be stopped; ranks with shorter answers wait for the others",
)
def generation() -> None:
    from transformers import StoppingCriteriaList

    class Streamer:
        pieces: list[list[int]] = []  # noqa: RUF012 - one test, one streamer

        def put(self, ids: Any) -> None:
            self.pieces.append(ids.flatten().tolist())

        def end(self) -> None:
            self.pieces.append([])

    def never(ids: Any, _: Any, **__: Any) -> Any:
        return torch.zeros(len(ids), dtype=torch.bool)

    model("qwen3").generate(
        input_ids=TOKENS,
        max_new_tokens=2,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        streamer=Streamer(),
        stopping_criteria=StoppingCriteriaList([never]),
        synced_gpus=False,
    )
    assert Streamer.pieces[0] == TOKENS.flatten().tolist()
    assert [len(piece) for piece in Streamer.pieces[1:]] == [1, 1, 0]


@leaned_on(
    "transformers: activation_checkpointing_enable with use_reentrant, beside frozen weights; a switch in each layer",
    by="train/base_model/forward.py",
    why="activations are made again where they do not fit; its own name for it has changed before",
)
def checkpointing() -> None:
    tried = adapted.__wrapped__("qwen3")
    base = tried.get_base_model()
    base.activation_checkpointing_enable({"use_reentrant": False})
    layers = [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert len(layers) == base.config.num_hidden_layers
    assert all(layer.gradient_checkpointing for layer in layers)
    tried.train()(TOKENS).logits.sum().backward()
    assert any(item.grad is not None for item in tried.parameters())


# transformers: loading


@leaned_on(
    "transformers: tables of model types and classes",
    by="train/base_model/native_class.py, train/base_model/loading.py",
    why="the class that a config.json names says whether transformers has one of its own",
)
def tables_of_classes() -> None:
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for family in families.FAMILIES:
        config = families.config(family)
        assert CONFIG_MAPPING[config.model_type] is type(config)
        assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type] == type(model(family)).__name__
        assert MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) is type(model(family))


@leaned_on(
    "transformers: from_pretrained(None, state_dict=…) reads slices, joins experts, and tells what is missing",
    by="train/base_model/loading.py, train/base_model/fp8.py",
    why="FP8 weights are dequantised as they are sliced; a model with made-up weights is refused",
)
def loading_from_slices() -> None:
    class Slice:
        """As much of a safetensors slice as is used."""

        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

        def get_shape(self) -> list[int]:
            return list(self.tensor.shape)

        def get_dtype(self) -> str:
            return "F32"

        def __getitem__(self, index: Any) -> torch.Tensor:
            return self.tensor[index]

    whole = model("glm-4.5")
    stored: dict[str, Any] = {}
    for name, tensor in whole.state_dict().items():
        if name.endswith("gate_up_proj"):
            for expert, (gate, up) in enumerate(part.chunk(2) for part in tensor):
                stored |= {f"{name.removesuffix('gate_up_proj')}{expert}.gate_proj.weight": Slice(gate)}
                stored |= {f"{name.removesuffix('gate_up_proj')}{expert}.up_proj.weight": Slice(up)}
        elif name.endswith("experts.down_proj"):
            stored |= {
                f"{name.removesuffix('down_proj')}{n}.down_proj.weight": Slice(down) for n, down in enumerate(tensor)
            }
        else:
            stored[name] = Slice(tensor)
    del stored["model.norm.weight"]

    loaded, found = type(whole).from_pretrained(
        None, state_dict=stored, config=families.config("glm-4.5"), dtype=torch.float32, output_loading_info=True
    )

    assert sorted(found["missing_keys"]) == ["model.norm.weight"]
    experts = "model.layers.1.mlp.experts.gate_up_proj"
    assert torch.equal(loaded.get_parameter(experts), whole.get_parameter(experts))


@leaned_on(
    "transformers: DistributedConfig, what of a model it shards, and that the root stays gathered",
    by="train/parallel/sharding.py, models/memory_plan.py",
    why="weights arrive sharded; how much is whole at a time is reckoned from which modules are gathered together",
)
def sharding_plans() -> None:
    from transformers.distributed import DistributedConfig, fsdp

    assert {"fsdp_size", "dp_replicate_size"} <= parameters(DistributedConfig)
    for family in families.FAMILIES:
        assert type(model(family))._fsdp_plan == {"lm_head": "keep_full_weight"}
        assert type(model(family).config).base_model_fsdp_plan["layers.*"] == "free_full_weight", family
    assert "fully_shard(model, mesh=fsdp_mesh" in inspect.getsource(fsdp.apply_fully_sharded_data_parallelism)


@leaned_on(
    "transformers dynamic_module_utils: where a repository's code is copied to, and the function that does it",
    by="train/base_model/loading.py, models/remote_code.py",
    why="processes copy it one after the other, and none of it from another repository, which is named with --",
)
def code_of_repositories() -> None:
    from transformers import dynamic_module_utils

    assert Path(dynamic_module_utils.HF_MODULES_CACHE).is_absolute()
    source = inspect.getsource(dynamic_module_utils.get_class_from_dynamic_module)
    assert '"--" in class_reference' in source
    copied = inspect.getsource(dynamic_module_utils.get_cached_module_file)
    assert "filecmp.cmp" in copied


@leaned_on(
    "transformers tokenizers: the backend's batch call, and the list of added tokens",
    by="data/chat/tokenizer.py, data/chat/tiktoken_tokenizer.py",
    why="texts are encoded many at a time with nothing added; control tokens in a dataset's text are found",
)
def tokenizers_backend() -> None:
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], ignore_merges=True))
    backend.add_special_tokens([AddedToken("<|end|>", normalized=False, special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")

    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(["ab<|end|>"], add_special_tokens=False)
    assert encoded[0].ids == [2, 3]
    assert {index: token.special for index, token in tokenizer.added_tokens_decoder.items()} == {3: True}


@leaned_on(
    "transformers and gguf: names looked up in the module gguf at each call, and the mark of quantised weights",
    by="fetch/dequantize.py",
    why="the reader is made once instead of once a tensor; what was dequantised is saved as a plain model",
)
def reading_gguf() -> None:
    import gguf
    from transformers import modeling_gguf_pytorch_utils

    assert callable(gguf.GGUFReader)
    assert callable(gguf.get_tensor_name_map)
    source = inspect.getsource(modeling_gguf_pytorch_utils)
    assert "from gguf import GGUFReader" in source
    assert "from gguf import" in source
    assert "get_tensor_name_map" in source
