"""The hand-written parts give the numbers of the plain ones: LoRA linear, attention in documents, head and loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from lorajob_runtime.contract.spec import LoraSpec
from lorajob_runtime.train import loss
from lorajob_runtime.train.base_model import attention
from lorajob_runtime.train.base_model import forward as model_module
from lorajob_runtime.train.lora import attach, dropout, linear
from lorajob_runtime.train.lora.dropout import DropoutMasks


class Pair(nn.Module):
    """Two projections of one input, the first with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(24, 40)
        self.gate = nn.Linear(24, 40, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x) * torch.sigmoid(self.gate(x))


def peft_pair(dropout: float) -> nn.Module:
    torch.manual_seed(3)
    model = get_peft_model(Pair(), LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["up", "gate"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model.train()


def gradients(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    output = model(x)
    output.square().sum().backward()
    return output.detach(), [item.grad for item in model.parameters() if item.requires_grad], x.grad


def test_the_fused_lora_linear_gives_pefts_output_and_gradients() -> None:
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
    plain, ours = peft_pair(0.0), peft_pair(0.0)
    assert linear.fuse(ours, DropoutMasks()) == 2

    for expected, got in zip(gradients(plain, x), gradients(ours, x), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)


def test_with_dropout_the_adapter_sees_the_masked_input_and_the_base_all_of_it() -> None:
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    masks = DropoutMasks()
    model = peft_pair(0.25)
    linear.fuse(model, masks)
    masks.start(1, 2, 3)
    output, _, x_gradient = gradients(model, x)

    draw = masks.draw(x.clone(), 0.25, 0)
    mask = dropout.masked(torch.ones_like(x), draw, draw.kept) / 0.75
    by_hand = x.clone().requires_grad_()
    up, gate = (
        layer.base_layer(by_hand)
        + layer.scaling["default"]
        * (mask * by_hand)
        @ layer.lora_A["default"].weight.T
        @ layer.lora_B["default"].weight.T
        for layer in (model.base_model.model.up, model.base_model.model.gate)
    )
    expected = up * torch.sigmoid(gate)
    expected.square().sum().backward()

    torch.testing.assert_close(output, expected.detach())
    torch.testing.assert_close(x_gradient, by_hand.grad)


def test_outside_training_a_fused_linear_gives_pefts_output_without_dropout() -> None:
    x = torch.randn(5, 24)
    plain, ours = peft_pair(0.5).eval(), peft_pair(0.5)
    linear.fuse(ours, DropoutMasks())

    torch.testing.assert_close(ours.eval()(x), plain(x), atol=1e-5, rtol=1e-5)
    with ours.disable_adapter(), plain.disable_adapter():
        assert torch.equal(ours(x), plain(x))
    ours.merge_adapter()
    plain.merge_adapter()
    assert torch.equal(ours(x), plain(x))


def drawn(masks: DropoutMasks, x: torch.Tensor, module: int, probability: float = 0.1) -> torch.Tensor:
    draw = masks.draw(x, probability, module)
    return dropout.masked(torch.ones_like(x), draw, draw.kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_asked_share_and_leaves_it_as_it_is(dtype: torch.dtype) -> None:
    masks = DropoutMasks()
    masks.start(42, 1)
    x = torch.randn(1000, 1000).to(dtype)
    draw = masks.draw(x, 0.1, 0)

    masked = dropout.masked(x, draw, draw.kept)

    assert float((masked == 0).float().mean()) == pytest.approx(0.1, abs=0.002)
    assert torch.equal(masked[masked != 0], x[masked != 0])
    assert torch.equal(dropout.mask_(x.clone(), draw, draw.kept), masked)


def test_what_is_dropped_follows_from_key_and_module_and_readers_of_one_input_share_it() -> None:
    masks, again = DropoutMasks(), DropoutMasks()
    x = torch.ones(8, 33)
    masks.start(42, 7, 0)
    again.start(42, 7, 0)
    first = drawn(masks, x, 5)

    assert torch.equal(drawn(masks, x, 6), first)
    assert torch.equal(drawn(again, x.clone(), 5), first)
    assert not torch.equal(drawn(again, x.clone(), 6), first)
    again.start(42, 8, 0)
    assert not torch.equal(drawn(again, x.clone(), 5), first)


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 11), (37, 320), (300, 2**17)])
def test_the_head_loss_gives_cross_entropys_sum_and_gradient_over_any_number_of_chunks(
    rows: int, vocabulary: int
) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, 8), torch.randn(vocabulary, 8)
    labels = torch.randint(vocabulary, (rows,))
    ours, plain = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()

    value = loss.head_loss(ours, weight, labels)
    (value / 3).backward()
    expected = F.cross_entropy(plain @ weight.T, labels, reduction="sum")
    (expected / 3).backward()

    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, plain.grad, atol=2e-4, rtol=1e-3)


def test_documents_laid_end_to_end_do_not_see_each_other(tiny_model: Path) -> None:
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    alone = [model(input_ids=ids.unsqueeze(0)).logits[0] for ids in (torch.arange(5, 12), torch.arange(40, 43))]
    model.set_attn_implementation(attention.NAME)

    packed = model(**model_module.packed_inputs(torch.cat([torch.arange(5, 12), torch.arange(40, 43)])[None], [7, 3]))

    torch.testing.assert_close(packed.logits[0], torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_attention_refuses_what_it_would_leave_out() -> None:
    query = torch.zeros(1, 2, 3, 4)

    with pytest.raises(ValueError, match="more than causal attention"):
        attention.document_attention(nn.Identity(), query, query, query, None, scaling=1.0, softcap=30.0)


def test_the_probe_finds_that_documents_pack_and_that_the_head_is_one_matrix(tiny_model: Path) -> None:
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.set_attn_implementation(attention.NAME)

    assert model_module.probe(model) == model_module.Traits(packs=True, plain_head=True)


def test_the_probe_finds_a_head_that_scales_its_logits() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Gemma2ForCausalLM(Gemma2Config(vocab_size=64, num_key_value_heads=1, head_dim=16, **sizes))

    assert not attention.supports(model.config)
    assert not model_module.probe(model).plain_head


def test_a_saved_adapter_gives_plain_peft_the_logits_of_training(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import save_file

    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = attach.attach(base, LoraSpec(dropout=0.0), seed=1, experts=False)
    for parameter in attach.trained(model).values():
        nn.init.normal_(parameter, std=0.05)
    linear.fuse(model, DropoutMasks())
    ids = torch.arange(5, 25).unsqueeze(0)
    in_training, outside = model.train()(input_ids=ids).logits, model.eval()(input_ids=ids).logits
    save_file(attach.adapter_state(model), tmp_path / "adapter_model.safetensors")
    attach.adapter_config(model, str(tiny_model)).save_pretrained(str(tmp_path))

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), tmp_path)

    torch.testing.assert_close(plain.eval()(input_ids=ids).logits, outside, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(in_training, outside, atol=1e-5, rtol=1e-4)
