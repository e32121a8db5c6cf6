"""A training process without training: appends steps and writes checkpoints as the real one does.

TORCH_FAKE_WORKER in the environment says how: {"total": 6, "save": 2, "hold": 3, "fail": {"rank": 0, "step": 3, …}}
    hold     at this step it waits until it is asked to stop
    deaf     it does not hear that it is asked to stop
    link     at this step it puts a link to the supervisor's spec in the place of its log
    fail     that rank ends at that step: "class" writes a cause, "signal" kills itself, "words" prints and exits 1
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from lorajob_runtime.contract import errors, identity, layout
from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.contract.events import EventLog
from lorajob_runtime.contract.identity import Identity
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.storage import checkpoint
from lorajob_runtime.train import job as plans


def main() -> int:
    folder = RunFolder(Path(sys.argv[1]))
    plan = plans.loads(folder.train_job.read_text())
    orders: dict[str, Any] = json.loads(os.environ["TORCH_FAKE_WORKER"])
    rank = int(os.environ["RANK"])
    log_path = folder.log(plan.attempt, rank)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    log_path.write_text(f"rank {rank} of {os.environ['WORLD_SIZE']}, {os.environ['OMP_NUM_THREADS']} threads\n")
    (folder.work / f"pid-{rank}").write_text(str(os.getpid()))
    log = EventLog(folder.events)
    report = json.loads(folder.data_report.read_text())
    made_with = identity.with_data(identity.of_model(Path(plan.model_path)), report)
    first = (plan.resume_step or 0) + 1
    for step in range(first, orders["total"] + 1):
        if rank == 0:
            log.append("step", step=step, total_steps=orders["total"], loss=1 / step)
        _fail(orders, rank, step, folder)
        if step == orders.get("link"):
            log_path.unlink()
            log_path.symlink_to(folder.spec)
        while step == orders.get("hold") and (orders.get("deaf") or not folder.stop_request.exists()):
            time.sleep(0.01)
        stopping = folder.stop_request.exists() and not orders.get("deaf")
        last = step == orders["total"]
        if rank == 0 and (step % orders["save"] == 0 or last or stopping):
            checkpoint.save(folder, step, lambda draft, step=step, last=last: _write(draft, step, last, made_with))
            log.append("checkpoint", step=step, path=f"checkpoints/step-{step:06d}")
        if stopping and not last:
            return _leave(folder, rank, "stopped", f"stopped at step {step} of {orders['total']}, with a checkpoint")
        time.sleep(orders.get("seconds", 0))
    return 0


def _fail(orders: dict[str, Any], rank: int, step: int, folder: RunFolder) -> None:
    for failure in orders.get("failures", []):
        if failure["rank"] != rank or failure["step"] != step:
            continue
        if "words" in failure:
            print(failure["words"], flush=True)
            os._exit(1)
        if "signal" in failure:
            os.kill(os.getpid(), failure["signal"])
        os._exit(_leave(folder, rank, failure["class"], failure["message"]))


def _leave(folder: RunFolder, rank: int, name: str, message: str) -> int:
    failure = errors.from_name(name)
    cause = {"exit_code": failure.code, "class": name, "message": message, "hint": failure.hint}
    folder.cause(rank).write_text(json.dumps(cause))
    return failure.code


def _write(draft: Path, step: int, last: bool, made_with: Identity) -> None:
    (draft / layout.ADAPTER_WEIGHTS).write_bytes(f"adapter of step {step}".encode())
    (draft / layout.ADAPTER_CONFIG).write_text("{}")
    (draft / layout.OPTIMIZER).write_bytes(f"optimizer of step {step}".encode())
    (draft / layout.STATE).write_text(json.dumps({"step": step, "finished": last} | identity.for_state(made_with)))


if __name__ == "__main__":
    try:
        code = main()
    except LorajobError as error:
        code = _leave(RunFolder(Path(sys.argv[1])), int(os.environ["RANK"]), error.failure.name, error.message)
    sys.stdout.flush()
    os._exit(code)
