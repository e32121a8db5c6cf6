"""What we lean on in PEFT."""

from __future__ import annotations

import inspect

import pytest
import torch
from leanings import adapted, leaned_on, model, parameters, wrappers
from torch import nn

import families

MOE_TYPES = {"hunyuan": "hunyuan_v1_moe", "glm-4.5": "glm4_moe", "minimax-m2": "minimax_m2"}


@leaned_on(
    "peft ParamWrapper: one inside the other, the outer one for down_proj",
    by="train/lora/experts.py, train/lora/attach.py, publish/expert_layouts.py",
    why="experts are factored from the outermost wrapper; per-expert files are cut by the names that nesting gives",
)
def nested_wrappers() -> None:
    from peft.tuners.lora.layer import ParamWrapper

    for family in families.MOE_FAMILIES:
        stacks = [each for each in wrappers(adapted(family)) if each.get_param().ndim == 3]
        outer, inner = stacks[0], stacks[0].base_layer
        assert (outer.parameter_name, inner.parameter_name) == ("down_proj", "gate_up_proj")
        assert isinstance(inner, ParamWrapper)
        assert type(inner.base_layer).__name__.endswith("Experts")


@leaned_on(
    "peft ParamWrapper: A [experts * rank, in], B [out, rank * experts]",
    by="train/lora/experts.py, publish/expert_layouts.py, models/families/layers.py",
    why="the factored products and the per-expert files read them in this order",
)
def layout_of_stacks() -> None:
    for wrapper in wrappers(adapted("glm-4.5")):
        weight = wrapper.get_param()
        if weight.ndim != 3:
            continue
        count, rank = weight.shape[0], wrapper.r["default"]
        a, b = wrapper.lora_A["default"].weight.detach(), torch.randn_like(wrapper.lora_B["default"].weight)
        with torch.no_grad():
            before = wrapper.lora_B["default"].weight.clone()
            wrapper.lora_B["default"].weight.copy_(b)
            delta = wrapper.get_delta_weight("default")
            wrapper.lora_B["default"].weight.copy_(before)
        by_expert = b.reshape(-1, rank, count).permute(2, 0, 1) @ a.reshape(count, rank, -1)
        torch.testing.assert_close(delta, by_expert * wrapper.scaling["default"])


@leaned_on(
    "peft LoRA layers: exact classes whose forward is overridden by changing __class__, and their fields",
    by="train/lora/linear.py, train/lora/experts.py, train/lora/nf4.py",
    why="a layer becomes a fused one in place, so that its names in a checkpoint stay PEFT's",
)
def fields_of_layers() -> None:
    from peft.tuners.lora.layer import Linear, ParamWrapper

    dense = adapted("qwen3")
    linear = next(module for module in dense.modules() if type(module) is Linear)
    for layer in (linear, next(wrappers(adapted("glm-4.5")))):
        assert set(layer.lora_A) == set(layer.lora_B) == set(layer.scaling) == set(layer.lora_bias) == {"default"}
        assert layer.active_adapters == ["default"]
        assert (layer.disable_adapters, layer.merged, layer.lora_bias["default"]) == (False, False, False)
    assert isinstance(linear.base_layer, nn.Linear)
    assert not hasattr(type(linear), "__slots__") or not type(linear).__slots__
    for kind in (Linear, ParamWrapper):
        assert list(inspect.signature(kind.forward).parameters) == ["self", "x", "args", "kwargs"]


@leaned_on(
    "peft ParamWrapper: refuses a configuration with dropout, and keeps a module for it all the same",
    by="train/lora/attach.py",
    why="the configuration says 0 beside experts, and layers that can have dropout get it afterwards",
)
def dropout_of_wrappers() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_parameters=["mlp.experts.down_proj"], target_modules=[], lora_dropout=0.1)
    with pytest.raises(ValueError, match="lora_dropout"):
        get_peft_model(model.__wrapped__("glm-4.5"), config)
    assert isinstance(next(wrappers(adapted("glm-4.5"))).lora_dropout, nn.ModuleDict)


@leaned_on(
    "peft: which module names it rewrites to experts' parameters in a mixture of experts",
    by="train/lora/inventory.py",
    why="modules of these names are given as parameters, since PEFT would take them for those of experts",
)
def rewritten_names() -> None:
    from peft.utils.transformers_weight_conversion import _MOE_TARGET_MODULE_MAPPING

    from lorajob_runtime.train.lora import inventory

    for family, kind in MOE_TYPES.items():
        names = {name.rsplit(".", 1)[-1] for name, _ in model(family).named_modules()}
        assert set(_MOE_TARGET_MODULE_MAPPING.get(kind, {})) & names <= inventory.rewritten_names(), kind


@leaned_on(
    "peft: what its state functions take and give",
    by="train/lora/attach.py",
    why="a checkpoint holds the adapter alone, of parameters that were named one by one; a stranger's is refused",
)
def state_functions() -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    assert {"state_dict", "save_embedding_layers"} <= parameters(get_peft_model_state_dict)
    result = set_peft_model_state_dict(adapted("qwen3"), {"base_model.model.stranger.lora_A.weight": torch.zeros(1)})
    assert result.unexpected_keys
    assert any("lora_" in name for name in result.missing_keys)


@leaned_on(
    "peft: finds bitsandbytes by its spec, and has a LoRA layer for its 4-bit linear layer",
    by="models/quantization.py, train/lora/nf4.py",
    why="a module that is None in sys.modules is one that is not installed; the layer is replaced by ours in place",
)
def four_bit_layers() -> None:
    from peft import import_utils
    from peft.tuners.lora import bnb

    assert 'find_spec("bitsandbytes")' in inspect.getsource(import_utils.is_bnb_available)
    assert list(inspect.signature(bnb.Linear4bit.forward).parameters)[:2] == ["self", "x"]


@leaned_on(
    "peft: one flag turns off the sizing of adapters by a weight's part",
    by="train/parallel/sharding.py",
    why="a mesh with replicas is taken for tensor parallelism, and adapters would have the shapes of parts",
)
def sizes_of_sharded_weights() -> None:
    import torch.distributed as dist
    from peft.tuners.tuners_utils import _get_in_out_features
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    from lorajob_runtime.train.parallel import sharding

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("dp_replicate", "fsdp"))
        layer = nn.Linear(4, 6)
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Replicate(), Shard(0)]))
        # as a rank that holds a part: what the module says of itself is the whole
        layer.in_features, layer.out_features = 8, 12
        assert _get_in_out_features(layer) == (4, 6)
        with sharding.whole_shapes():
            assert _get_in_out_features(layer) == (8, 12)
    finally:
        dist.destroy_process_group()
