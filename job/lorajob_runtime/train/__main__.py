"""Entry point of a training process: `python -m lorajob_runtime.train RUN_FOLDER`, one a GPU, started by torchrun."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from lorajob_runtime.contract import errors
from lorajob_runtime.contract.errors import FailureClass, LorajobError
from lorajob_runtime.contract.layout import RunFolder
from lorajob_runtime.contract.text import error_line
from lorajob_runtime.models import quantization
from lorajob_runtime.system import atomic, environment, processes
from lorajob_runtime.train import job as train_job

_DATA_POLL_SECONDS = 0.05
_CAUSE_LENGTH = 4000
"""Of a failure's first line: what a cause is recognised by may stand at its end."""


def main(arguments: list[str]) -> int:
    """Trains, and leaves the cause of a failure in the run folder. Returns the exit code of its class."""
    processes.die_with_parent()
    processes.be_first_out_of_memory()
    # a terminal's Ctrl-C reaches the whole group; stopping is asked for by file, so that a step is never cut in two
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = RunFolder(Path(arguments[0]))
    rank = environment.torchrun().rank
    try:
        job = train_job.loads(folder.train_job.read_text())
        _redirect(folder.log(job.attempt, rank))
        quantization.block_bitsandbytes_import(job.spec.model)
        from lorajob_runtime.train import loop

        wait_for_data(folder)
        loop.train(job, folder)
    except LorajobError as error:
        if error.failure is errors.STOPPED:
            # an ordinary end
            print(error.message, file=sys.stderr)  # noqa: T201 its log
        else:
            traceback.print_exc()
        return _leave(folder, rank, error.failure, error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - the last place that can say why
        traceback.print_exc()
        from lorajob_runtime.system.device_errors import is_out_of_memory, of_this_gpu

        if (final := of_this_gpu(error)) is not None:
            return _leave(folder, rank, final.failure, final.message, final.hint)
        failure = errors.OUT_OF_MEMORY if is_out_of_memory(error) else errors.UNEXPECTED
        return _leave(folder, rank, failure, error_line(error, limit=_CAUSE_LENGTH, with_class=True), failure.hint)
    _close_process_group()
    return 0


def _leave(folder: RunFolder, rank: int, failure: FailureClass, message: str, hint: str) -> int:
    cause = {"exit_code": failure.code, "class": failure.name, "message": message, "hint": hint}
    atomic.replace_file(folder.cause(rank), json.dumps(cause, ensure_ascii=False))
    return failure.code


def _redirect(path: Path) -> None:
    """Sends everything this process prints, native libraries included, to its log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)


def wait_for_data(folder: RunFolder) -> None:
    """Returns when the dataset is prepared, which takes its time while this process imports what it needs."""
    while folder.data_awaited.exists():
        time.sleep(_DATA_POLL_SECONDS)


def _close_process_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # not sys.exit: after a peer is gone, the libraries' own clean-up can hang or abort and hide the cause
    os._exit(code)
