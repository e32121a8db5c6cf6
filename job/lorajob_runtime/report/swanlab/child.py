"""Runs SwanLab's SDK in a process of its own: `python -m lorajob_runtime.report.swanlab.child`.

Reads JSON lines: first {"start": {mode, project, workspace, name, id, log_dir, run_dir, config}, "keys": {the SDK's own
variables}}, then any number of
{"log": {step, values, texts}, "number": n}, then {"finish": {state, error}}. Answers {"ready": {url}} or {"failed":
reason}; {"confirmed": n} when the server has everything up to number n; {"finished": true}. Ends at once when its
input closes.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from lorajob_runtime.contract.text import error_line, whole_error
from lorajob_runtime.system import key_isolation
from lorajob_runtime.system.child_process import Message, Parent

_TICK_SECONDS = 1.0
_SETTLE_SECONDS = 2.0
"""A value that was logged reaches the SDK's upload queue through threads of its own; by then it has."""
_LOGIN_SECONDS = 5.0


def main() -> None:
    """Serves one run, then ends without the SDK's exit hooks, which wait for its host without a limit."""
    key_isolation.keep_private()
    parent = Parent()
    start = parent.request()["start"]
    try:
        run = _start(start)
    except Exception as error:  # noqa: BLE001 whatever keeps the SDK from starting is the answer
        print(f"SwanLab did not start: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 this is its log
        parent.answer({"failed": _reason(error, start["mode"])})
        parent.leave(1)
    parent.answer({"ready": {"url": run.url if start["mode"] == "online" else None}})
    _serve(run, parent)
    parent.leave()


def _start(start: Message) -> Any:
    import swanlab

    settings = swanlab.Settings(
        interactive=False,
        terminal={"proxy_type": "none"},
        probe=dict.fromkeys(("hardware", "runtime", "requirements", "conda", "git", "monitor"), False),
        run={"dir": start["run_dir"]},
    )
    return swanlab.init(
        mode=start["mode"],
        project=start["project"],
        workspace=start["workspace"],
        name=start["name"],
        id=start["id"],
        resume="allow",
        log_dir=start["log_dir"],
        config=start["config"],
        settings=settings,
    )


def _serve(run: Any, parent: Parent) -> None:
    logged: list[tuple[float, int]] = []
    while True:
        message = parent.message(_TICK_SECONDS) or {}
        if "log" in message:
            _log(run, message["log"])
            logged.append((time.monotonic(), message["number"]))
        if "finish" in message:
            run.finish(**message["finish"])
            parent.answer({"finished": True})
            return
        settled = [number for moment, number in logged if time.monotonic() - moment >= _SETTLE_SECONDS]
        if settled and _has_uploaded_all(run):
            parent.answer({"confirmed": settled[-1]})
            logged = logged[len(settled) :]


def _log(run: Any, point: Message) -> None:
    import swanlab

    values: dict[str, Any] = dict(point["values"])
    if point["texts"]:
        values["Prediction"] = [swanlab.Text(text["text"], caption=text["caption"]) for text in point["texts"]]
    run.log(values, step=point["step"])


def _has_uploaded_all(run: Any) -> bool:
    """Whether the server has taken every record so far. The SDK shows this as its progress when it finishes.

    Its accessor is private. Where it is missing only an orderly finish is remembered as sent; after any other end the
    SDK itself leaves out the steps that the server says it has.
    """
    try:
        stats = run._core.get_operation_stats().stats
    except AttributeError:
        return False
    return bool(run.mode == "online" and stats.uploaded_records >= stats.total_records)


def _reason(error: Exception, mode: str) -> str:
    """Why the SDK did not start, in words: of a login it says only that it failed."""
    if mode != "online":
        # all lines of it: the first of a wrong setting's does not name the setting
        return whole_error(error)
    import requests
    import swanlab

    settings = swanlab.Settings()
    host = settings.api_host
    if not settings.api_key:
        return "there is no API key (SWANLAB_API_KEY is not set)"
    try:
        login = f"{host}/api/login/api_key"
        status = requests.post(login, headers={"authorization": settings.api_key}, timeout=_LOGIN_SECONDS).status_code
    except requests.RequestException:
        return f"{host} does not answer"
    if status in (401, 403):
        return f"{host} does not accept the API key"
    return error_line(error, with_class=True) if status < 400 else f"{host} answers with status {status}"


if __name__ == "__main__":
    main()
