"""What we lean on in torch, bitsandbytes, the hubs' clients and SwanLab."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from leanings import leaned_on, parameters
from torch import nn


@leaned_on(
    "torch FSDP2: a parameter put into a module after fully_shard is nobody's but the module's",
    by="train/parallel/sharding.py, train/parallel/gradients.py",
    why="adapters are attached to weights that are sharded already, and stay whole with gradients of their own",
)
def parameters_after_sharding() -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    class Adapted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not isinstance(self.weight, DTensor)
            return super().forward(x) + x @ self.late

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        layer = Adapted(4, 4, bias=False).requires_grad_(False)
        fully_shard(layer, mesh=init_device_mesh("cpu", (1,)))
        layer.late = nn.Parameter(torch.ones(4, 4))
        layer(torch.ones(1, 4)).sum().backward()
        assert isinstance(layer.weight, DTensor)
        assert not isinstance(layer.late, DTensor)
        assert torch.equal(layer.late.grad, torch.ones(4, 4))
    finally:
        dist.destroy_process_group()


@leaned_on(
    "torch: grouped_mm, silu_backward and varlen_attn",
    by="train/lora/experts.py, train/base_model/attention.py",
    why="experts are products over groups of rows; documents on a GPU are torch's own variable-length attention",
)
def kernels() -> None:
    from torch.nn.attention.varlen import varlen_attn

    offsets = torch.tensor([1, 4], dtype=torch.int32)
    rows, weights = torch.randn(4, 8), torch.randn(2, 8, 16)
    product = torch.nn.functional.grouped_mm(rows, weights, offs=offsets)
    torch.testing.assert_close(product, torch.cat([rows[:1] @ weights[0], rows[1:] @ weights[1]]))
    gate = torch.randn(3, requires_grad=True)
    torch.nn.functional.silu(gate).sum().backward()
    torch.testing.assert_close(torch.ops.aten.silu_backward(torch.ones(3), gate.detach()), gate.grad)
    names = ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert list(inspect.signature(varlen_attn).parameters)[:7] == names
    assert {"scale", "window_size", "enable_gqa"} <= parameters(varlen_attn)


@leaned_on(
    "torch AdamW: what its state holds, and that a state put there by hand is used",
    by="train/checkpointing.py, train/session.py",
    why="checkpoints hold the two moments by name, and a resumed run goes on bit for bit",
)
def state_of_adamw() -> None:
    def stepped(weight: nn.Parameter, optimizer: torch.optim.AdamW) -> None:
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.step()

    first = nn.Parameter(torch.ones(3))
    whole = torch.optim.AdamW([first], lr=0.1, fused=True)
    stepped(first, whole)
    state = {name: value.clone() for name, value in whole.state[first].items()}
    assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
    second = nn.Parameter(first.detach().clone())
    resumed = torch.optim.AdamW([second], lr=0.1, fused=True)
    resumed.state[second] = state | {"step": torch.tensor(1.0)}
    stepped(first, whole)
    stepped(second, resumed)
    assert torch.equal(first, second)


@leaned_on(
    "torch: what a CPU says of itself, and torchrun's options and variables",
    by="train/base_model/forward.py, run/launcher.py, system/environment.py",
    why="bf16 is chosen where it is native; ranks keep the order of the nodes with the static rendezvous",
)
def processes() -> None:
    from torch.distributed import run
    from torch.distributed.elastic.agent.server import local_elastic_agent

    assert isinstance(torch.cpu.get_capabilities(), Mapping)
    known = {name for action in run.get_args_parser()._actions for name in action.option_strings}
    used = ["--standalone", "--local-addr", "--nnodes", "--node-rank", "--rdzv-id", "--master-addr", "--master-port"]
    assert {*used, "--nproc-per-node", "--max-restarts", "--no-python"} <= known
    source = inspect.getsource(local_elastic_agent)
    assert all(f'"{name}"' in source for name in ("GROUP_RANK", "LOCAL_WORLD_SIZE", "RANK"))


# bitsandbytes, modelscope, SwanLab


@leaned_on(
    "bitsandbytes Linear4bit: support_avx512bf16_for_cpu",
    by="train/lora/nf4.py",
    why="with it an evaluation packs the weights anew, and no gradient passes afterwards",
)
def packing_on_cpus() -> None:
    from bitsandbytes.nn import Linear4bit

    source = inspect.getsource(Linear4bit)
    assert "self.support_avx512bf16_for_cpu" in source.split("def forward")[1]


@leaned_on(
    "transformers: marks a model that bitsandbytes has loaded",
    by="train/lora/linear.py",
    why="only then is bitsandbytes imported and its layers looked for",
)
def mark_of_four_bits() -> None:
    from transformers.quantizers import quantizer_bnb_4bit

    assert '"is_loaded_in_4bit", True' in inspect.getsource(quantizer_bnb_4bit)


@leaned_on(
    "modelscope_hub: HubApi and its errors, below modelscope's own SDK",
    by="fetch/hubs/modelscope.py",
    why="files are listed with their sha256, fetched one by one and resumed; its errors become ours",
)
def modelscope() -> None:
    from modelscope_hub import HubApi, errors

    assert {"repo_id", "repo_type", "revision"} <= parameters(HubApi.list_repo_files)
    assert "repo_type" in parameters(HubApi.resolve_endpoint_for_read)
    wanted = {"revision", "local_dir", "cache_dir", "expected_sha256", "file_size"}
    assert wanted <= parameters(HubApi.download_file)
    for name in ("AuthenticationError", "PermissionDeniedError", "NotExistError", "InvalidParameter"):
        assert issubclass(getattr(errors, name), Exception)
    assert issubclass(errors.FileIntegrityError, Exception)


@leaned_on(
    "huggingface_hub: where it leaves a file that is not whole, and what an entry of a listing has",
    by="fetch/hubs/huggingface.py",
    why="it never takes up what a killed process left; contents are checked against what the hub lists",
)
def hugging_face() -> None:
    from huggingface_hub import _local_folder
    from huggingface_hub.hf_api import RepoFile

    assert ".incomplete" in inspect.getsource(_local_folder)
    listed = {"path": "a", "size": 3, "oid": "b", "lfs": {"oid": "c", "size": 3, "pointerSize": 1}}
    entry = RepoFile(**listed)
    assert (entry.path, entry.size, entry.blob_id, entry.lfs.sha256) == ("a", 3, "b", "c")


@leaned_on(
    "swanlab: a run's private core, which counts what the server has taken, and its settings",
    by="report/swanlab/child.py",
    why="only what has arrived counts as sent; where it is missing only an orderly end does",
)
def swanlab_core() -> None:
    import swanlab
    from swanlab.proto.swanlab.operation.v1 import operation_pb2
    from swanlab.sdk.internal.core_python import CorePython
    from swanlab.sdk.internal.run import Run

    fields = {field.name for field in operation_pb2.OperationStats.DESCRIPTOR.fields}
    assert {"uploaded_records", "total_records"} <= fields
    assert callable(CorePython.get_operation_stats)
    assert "self._core = " in inspect.getsource(Run.__init__)
    assert {"mode", "project", "workspace", "name", "id", "resume", "log_dir", "settings"} <= parameters(swanlab.init)
