"""The one way a base model is loaded, for training and for answers: plain, FP8 or 4-bit weights, whole or sharded."""

from __future__ import annotations

import fcntl
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    dynamic_module_utils,
)

from lorajob_runtime.contract.errors import ConfigError, ModelError, OutOfMemoryError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.contract.text import error_line
from lorajob_runtime.models import config_files, families, quantization, remote_code
from lorajob_runtime.system import device_errors
from lorajob_runtime.train.base_model import fp8
from lorajob_runtime.train.base_model.native_class import native_type


def load(path: Path, model: ModelSpec, dtype: torch.dtype, device: torch.device, **options: Any) -> PreTrainedModel:
    """The model in `path`, its weights converted to `dtype`. `options` are `from_pretrained`'s.

    With `distributed_config` every rank reads its own part of each tensor only, and dequantises it on `device`. 4-bit
    weights are there too. Raises ModelError for what transformers cannot load, and for files that lack some of the
    weights; ConfigError where 4-bit weights cannot be; OutOfMemoryError; and what may pass as it is.
    """
    try:
        config, own_code = configuration(path, model)
        options = options | {"config": config, "dtype": dtype, "output_loading_info": True}
        if model.quantize is not None:
            options |= _four_bit(model).options(dtype, device)
        blocks = quantization.fp8_blocks(model.name, config.to_dict())
        if blocks is not None:
            loaded, found = _from_fp8(path, model, blocks, options, device)
        else:
            loaded, found = AutoModelForCausalLM.from_pretrained(
                path, trust_remote_code=own_code, use_safetensors=True, **options
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if device_errors.is_out_of_memory(error):
            raise OutOfMemoryError(f"{model.name}: its weights do not fit: {error}") from error
        if device_errors.may_pass(error) or device_errors.of_this_gpu(error) is not None:
            raise
        raise ModelError(f"{model.name}: transformers cannot load it from {path}: {error}") from error
    # transformers initialises missing weights at random, and goes on
    if absent := sorted(found["missing_keys"]):
        raise ModelError(
            f"{model.name}: {len(absent)} weights of {type(loaded).__name__} are not in {path}, the first {absent[0]}"
        )
    if model.quantize is not None:
        _four_bit(model).disable_repacking(loaded)
    return cast(PreTrainedModel, loaded)


def configuration(path: Path, model: ModelSpec) -> tuple[PreTrainedConfig, bool]:
    """The model's configuration, and whether its classes come from the repository's code.

    They do only where transformers has none of its own, and where that code is trusted: else ModelError.
    """
    stored = config_files.read_config(path / config_files.CONFIG)
    if (model_type := native_type(stored)) is not None:
        # its repository's name for it would keep transformers from what it knows of the weights
        config = CONFIG_MAPPING[model_type].from_pretrained(path, model_type=model_type)
        for name, value in families.renamed_fields(stored, model_type).items():
            setattr(config, name, value)
        if getattr(config, "head_dim", 0) is None:
            # some of transformers' classes have no default for it
            config.head_dim = config.hidden_size // config.num_attention_heads
        return config, False
    code = [remote_code.reference(stored, each) for each in ("AutoConfig", "AutoModelForCausalLM")]
    if code[1] is None or not model.trust_remote_code:
        raise remote_code.unsupported_model(model.name, stored)
    _import(path, [each for each in code if each])
    return AutoConfig.from_pretrained(path, trust_remote_code=True), True


def _import(path: Path, code: list[str]) -> None:
    """Lets transformers copy a repository's code to where it runs, and run it, one process at a time.

    It copies onto the file that another process of this run may just be reading, unless the copy is there and right.
    """
    place = Path(dynamic_module_utils.HF_MODULES_CACHE)
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lorajob.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for reference in code:
            dynamic_module_utils.get_class_from_dynamic_module(reference, str(path), local_files_only=True)


def _four_bit(model: ModelSpec) -> ModuleType:
    try:
        return importlib.import_module("lorajob_runtime.train.lora.nf4")
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"model.quantize is {model.quantize!r}: bitsandbytes does not work on this machine: {error_line(error)}",
            hint="leave model.quantize out, or install lorajob[runtime] again",
        ) from error


def _from_fp8(
    path: Path, model: ModelSpec, blocks: quantization.Fp8Blocks, options: dict[str, Any], device: torch.device
) -> tuple[PreTrainedModel, dict[str, Any]]:
    config = options["config"]
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        raise ModelError(f"{model.name}: transformers has no class for {config.model_type!r}, only plain weights load")
    # what is loaded is plain: nothing downstream shall take it for quantised
    del config.quantization_config
    if (path / config_files.GENERATION_CONFIG).is_file():
        options = options | {"generation_config": GenerationConfig.from_pretrained(path)}
    with fp8.opened(path, blocks, options["dtype"], device) as weights:
        # given weights in place of a folder, it reads them by slices just the same
        loaded, found = model_class.from_pretrained(None, state_dict=weights, **options)
    loaded.config.name_or_path = loaded.name_or_path = str(path)
    return loaded, found
