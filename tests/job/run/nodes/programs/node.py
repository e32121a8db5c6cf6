"""One node of a run on this machine, as its pod would run it: `node.py SPEC_FILE NODE LAST_WORDS_FILE`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.run import pod as inpod
from lorajob_runtime.run import worker_node
from lorajob_runtime.run.limits import Limits
from lorajob_runtime.system import environment
from lorajob_runtime.system.environment import Pod

if __name__ == "__main__":
    spec = specs.loads(Path(sys.argv[1]).read_text())
    node = int(sys.argv[2])
    pod = Pod(job=spec.run_name, namespace="default", name=f"node-{node}", node=node, api_server="127.0.0.1:9")
    settings = environment.read()
    if node == 0:
        words = inpod.run(spec, settings, pod)
    else:
        words = worker_node.run(spec, settings, pod, leader="127.0.0.1", limits=Limits(stall=60))
    inpod.leave(words, Path(sys.argv[3]))
    # as the container's entry point ends
    os._exit(words.exit_code)
