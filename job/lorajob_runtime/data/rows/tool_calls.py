"""Tool calls in a turn, brought into OpenAI's form; parts of them may have been written as JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorajob_runtime.contract.text import kind
from lorajob_runtime.data.rows.conversation import Aside, RowError
from lorajob_runtime.data.rows.unused import beside, has_something
from lorajob_runtime.data.rows.values import parsed

CALLS = ("tool_calls", "function_call", "function_calls")
_ARGUMENTS = ("arguments", "parameters")
_READ = frozenset(("id", "type", "index", "function"))


def calls_in(turn: Mapping[str, Any]) -> object:
    """The calls that a turn has beside its text, as the row has them; None when there are none."""
    value = next((turn[key] for key in CALLS if has_something(turn.get(key))), None)
    # an empty list as text is none either
    return None if isinstance(value, str) and value.strip() in ("", "[]", "{}", "null") else value


def calls_of(value: object, number: int, aside: Aside) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form, their arguments as an object. Raises RowError."""
    value = parsed(value, f"the call in turn {number}")
    calls = []
    for item in value if isinstance(value, list) else [value]:
        item = parsed(item, f"the call in turn {number}")
        function = parsed(item.get("function", item), f"the call in turn {number}") if isinstance(item, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(item, dict) or not isinstance(function, dict) or not isinstance(name, str):
            raise RowError(f"turn {number} calls no function by name: a call needs name and arguments")
        at = next((key for key in _ARGUMENTS if has_something(function.get(key))), "arguments")
        call: dict[str, Any] = {
            "type": "function",
            "function": {"name": name, "arguments": _arguments(function.get(at), number)},
        }
        if isinstance(item.get("id"), str):
            call["id"] = item["id"]
        aside.unused.update(beside("call key", item, _READ if function is not item else {*_READ, "name", at}))
        if function is not item:
            aside.unused.update(beside("call key", function, {"name", at}))
        calls.append(call)
    if not calls:
        raise RowError(f"turn {number} calls no function")
    return calls


def _arguments(value: object, number: int) -> dict[str, Any]:
    what = f"what turn {number} has for arguments"
    if isinstance(value, str) and not value.strip():
        return {}
    # Text within text comes from a call that was written as JSON twice.
    arguments = parsed(parsed(value if has_something(value) else {}, what), what)
    if not isinstance(arguments, dict):
        raise RowError(f"the arguments in turn {number} are {kind(arguments)}: they must be an object")
    return arguments
