"""Failure classes and exit codes of the command line itself, beside those of a run (`contract.errors`)."""

from __future__ import annotations

from lorajob_runtime.contract.errors import ConfigError, FailureClass

USAGE = FailureClass(code=2, name="usage", final=True, hint="")
FAILED = FailureClass(code=100, name="failed", final=True, hint="`lorajob status NAME` says why")
NOT_FINISHED = FailureClass(code=101, name="not-finished", final=False, hint="`lorajob wait NAME` waits for its end")
NOT_FOUND = FailureClass(code=102, name="not-found", final=True, hint="`lorajob list` shows the runs there are")
CANCELLED = FailureClass(code=103, name="cancelled", final=True, hint="`lorajob retry NAME` starts it again")
UNREACHABLE = FailureClass(
    code=104, name="unreachable", final=False, hint="check the network, the VPN and the context of your kubeconfig"
)
TIMED_OUT = FailureClass(code=124, name="timed-out", final=False, hint="the run keeps running; wait again, or longer")
BUSY = FailureClass(
    code=1,
    name="busy",
    final=False,
    hint="something else changed the same object at the same time: run the command again",
)

CLI_FAILURES = (FAILED, NOT_FINISHED, NOT_FOUND, CANCELLED, UNREACHABLE, TIMED_OUT)
"""How commands on a cluster end beside what a run itself ends with."""


class UsageError(ConfigError):
    """A flag, an argument or a spec file is wrong; nothing was started."""

    failure = USAGE
