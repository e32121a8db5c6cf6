"""One node of a run on this machine, as its pod would run it: `node.py SPEC_FILE NODE TERMINATION_MESSAGE_PATH`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lorajob_runtime.contract import spec as specs
from lorajob_runtime.run import pod as pod_entry
from lorajob_runtime.run import termination_message, worker_node
from lorajob_runtime.run.limits import Limits
from lorajob_runtime.system import environment
from lorajob_runtime.system.environment import Pod

if __name__ == "__main__":
    spec = specs.loads(Path(sys.argv[1]).read_text())
    node = int(sys.argv[2])
    pod = Pod(job=spec.run_name, namespace="default", name=f"node-{node}", node=node, api_server="127.0.0.1:9")
    settings = environment.read()
    if node == 0:
        termination = pod_entry.run(spec, settings, pod)
    else:
        termination = worker_node.run(spec, settings, pod, node0_host="127.0.0.1", limits=Limits(stall=60))
    termination_message.write(termination, Path(sys.argv[3]))
    # as the container's entry point ends
    os._exit(termination.exit_code)
