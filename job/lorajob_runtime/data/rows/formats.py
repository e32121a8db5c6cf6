"""The dataset forms, and how a row of each becomes a conversation or a text.

alpaca      instruction, input, output[, system, history]      user turn = instruction + input, nothing between
qa          input, output[, system, history]                   or question/answer, query/response, prompt/completion, …
sharegpt    conversations of from/value[, tools, system]       or a row that is such a list itself
messages    messages of role/content[, tools]
text        text                                               trained whole
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from lorajob_runtime.contract.text import key_list, kind
from lorajob_runtime.data.rows import column_roles, unsupported
from lorajob_runtime.data.rows.column_roles import NEEDS, TURN_COLUMNS, has, turn_column
from lorajob_runtime.data.rows.conversation import Aside, Conversation, Message, RowError, Text
from lorajob_runtime.data.rows.json_values import value_of
from lorajob_runtime.data.rows.tool_calls import calls_of
from lorajob_runtime.data.rows.turns import finished, messages_of, tool_list, turn_list
from lorajob_runtime.data.rows.unused import beside, has_something, named, says_something
from lorajob_runtime.data.rows.values import as_text, parsed

_TOOLS = ("tools", "functions")
_GLUED = "context"
"""The column that stands a line below the instruction. Others follow it with nothing between, as tutorials do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How this file's rows are read. `columns` maps a role to the column that has it; `verdict` says it to a person.

    `chosen` are columns that the user named for the answer: rows of another kind of training are then taken for it.
    """

    name: str
    columns: Mapping[str, str]
    system: str | None
    verdict: str
    chosen: frozenset[str] = frozenset()
    pairs: Mapping[frozenset[str], tuple[str, ...]] = field(init=False, compare=False, repr=False)
    """Keys of a row that has a question and an answer and nothing else -> the columns of the question."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", dict(self._possible_pairs()) if self.name in ("alpaca", "qa") else {})

    def _possible_pairs(self) -> Iterator[tuple[frozenset[str], tuple[str, ...]]]:
        others = {self.columns.get(role) for role in ("system", "history", "thought", "tools")} | set(_TOOLS)
        glued = self.columns.get("input", "").lower() == _GLUED
        for roles in (("instruction",), ("input",), ("instruction", "input")):
            asking = tuple(self.columns[role] for role in roles if role in self.columns)
            keys = frozenset((*asking, self.columns["output"]))
            is_whole = len(asking) == len(roles) and set(NEEDS[self.name]) <= {*roles, "output"}
            is_plain = len(keys) == len(roles) + 1 and keys.isdisjoint(others) and not (glued and len(roles) == 2)
            if is_whole and is_plain and not unsupported.may_be(dict.fromkeys(keys)):
                yield keys, asking

    def convert(self, row: object) -> Conversation | Text:
        """The row as a conversation or a text. Raises RowError."""
        if self.pairs and type(row) is dict and (found := self._plain_pair(row)) is not None:
            return found
        aside = Aside()
        if isinstance(row, list) and self.name in ("sharegpt", "messages"):
            return finished(messages_of(row, aside), tools=None, system=self.system, aside=aside)
        if not isinstance(row, dict):
            raise RowError(f"is {kind(row)}: it must be an object with {self._needed()}")
        if unsupported.may_be(row) and (
            known := unsupported.known_as(row, answer=self.answer_column(row), chosen=self.chosen)
        ):
            raise RowError(known.of_row)
        is_whole = all(has(row, self.columns, role) for role in NEEDS[self.name])
        # a key that is missing is a null, as in a table, unless the row says what it has under another name
        if not is_whole and says_something(row, beside={*self.columns.values(), *TURN_COLUMNS, *_TOOLS}):
            raise RowError(f"has the keys {key_list(row)}: the form {self.name} needs {self._needed()}")
        self._refuse_other_form(row)
        if self.name == "text":
            return self._text(row, aside)
        return self._pair(row, aside) if self.name in ("alpaca", "qa") else self._turns(row, aside)

    def _plain_pair(self, row: dict[str, Any]) -> Conversation | None:
        """What becomes of a row that is a question and an answer and nothing else, all of them text."""
        asking = self.pairs.get(frozenset(row))
        if asking is None:
            return None
        parts, answer = [row[column] for column in asking], row[self.columns["output"]]
        if {type(answer), *map(type, parts)} != {str}:
            return None
        asked = "".join(parts)
        # a bracket may begin turns or calls in JSON text
        if not asked.strip() or answer.lstrip()[:1] in ("", "["):
            return None
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        return Conversation(
            messages=[{"role": "system", "content": self.system}, *messages] if self.system else messages
        )

    def _refuse_other_form(self, row: Mapping[str, Any]) -> None:
        """Raises RowError for a row with nothing where this form looks, and all that another form needs."""
        if "messages" in NEEDS[self.name]:
            columns = [turn_column(row, self.columns)]
        else:
            columns = [self.columns[role] for role in NEEDS[self.name]]
        if any(has_something(row.get(column)) for column in columns):
            return
        present = {name: value for name, value in row.items() if has_something(value)}
        others = column_roles.possible({name.lower(): name for name in present}, {})
        other = next((reading for reading in others if reading.fits(present)), None)
        if other is not None:
            said = [turn_column(present, {})] if "messages" in NEEDS[other.form] else other.carried().values()
            listed = key_list(dict.fromkeys(name for name in said if name in present))
            raise RowError(f"has {listed}, and nothing where the form {self.name} needs {self._needed()}")

    def _text(self, row: dict[str, Any], aside: Aside) -> Text:
        text = self._value(row, "text")
        if not text.strip():
            raise RowError("empty text", droppable=True)
        aside.unused.update(beside("column", row, {self.columns["text"]}))
        return Text(text, aside)

    def _turns(self, row: dict[str, Any], aside: Aside) -> Conversation:
        column = turn_column(row, self.columns)
        system, used = self._value(row, "system"), {column}
        if not has_something(row.get(column)):
            raise RowError("empty conversation", droppable=True)
        turns = turn_list(row[column])
        messages = messages_of(turns, aside)
        if not any(message["role"] == "system" and message["content"].strip() for message in messages):
            used |= {self.columns.get("system", "")}
        described = self._describing(row)
        tools = row.get(described) if described else _tools_of_turns(turns, aside)
        aside.unused.update(beside("column", row, used | {described}))
        return finished(messages, tools=tool_list(tools), system=system or self.system, aside=aside)

    def _pair(self, row: dict[str, Any], aside: Aside) -> Conversation:
        history = _history(row.get(self.columns["history"]) if "history" in self.columns else None, aside)
        described = self._describing(row)
        system = self._value(row, "system")
        messages = [{"role": "system", "content": system}] if system.strip() else []
        if written := self._written_as_text(row):
            row = row | written
        asked = self._question(row, aside)
        answer = self._answer(row, described, aside)
        used = {self.columns.get(role) for role in ("system", "history", *self._asking(row), "output")} | {described}
        thought = row.get(self.columns.get("thought", ""))
        if isinstance(thought, str) and thought.strip() and not answer[0]["content"].lstrip().startswith("<think>"):
            answer[0].setdefault("reasoning_content", thought)
            used |= {self.columns["thought"]}
        aside.unused.update(beside("column", row, {name for name in used if name}))
        spoken = messages + history + asked + answer
        tools = row.get(described) if described else self._tools_of_request(row)
        return finished(spoken, tools=tool_list(tools), system=self.system, aside=aside)

    def _written_as_text(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The prompt and the completion as turns where both are turns in JSON text: one alone may be what it says."""
        if not _begins_turns(row.get(self.columns["output"])):
            return {}
        asking = self._asking(row)
        columns = [self.columns[asking[0]] if len(asking) == 1 else "", self.columns["output"]]
        values = [row.get(column) for column in columns]
        if not all(map(_begins_turns, values)):
            return {}
        with contextlib.suppress(ValueError, RecursionError):
            read = [value_of(str(value)) for value in values]
            if all(_as_turns(turns) for turns in read):
                return dict(zip(columns, read, strict=True))
        return {}

    def _asking(self, row: Mapping[str, Any]) -> list[str]:
        return [role for role in ("instruction", "input") if self.columns.get(role) in row]

    def _question(self, row: dict[str, Any], aside: Aside) -> list[Message]:
        """The user's turn, or turns as TRL has them in a prompt, whose answers are context."""
        roles = self._asking(row)
        prompt = row[self.columns[roles[0]]] if len(roles) == 1 else None
        if _is_request(prompt):
            aside.unused.update(beside("column", prompt, {"messages", *_TOOLS}))
            prompt = prompt["messages"]
        if isinstance(prompt, list | dict) and (turns := _as_turns(prompt)):
            asked = messages_of(turns, aside)
            return [said | {"trained": False} if said["role"] == "assistant" else said for said in asked]
        parts = [self._value(row, role) for role in roles]
        between = "\n" if len(roles) == 2 and self.columns["input"].lower() == _GLUED and all(parts) else ""
        if not "".join(parts).strip():
            raise RowError("empty instruction" if self.name == "alpaca" else "empty input", droppable=True)
        return [{"role": "user", "content": between.join(parts)}]

    def _answer(self, row: dict[str, Any], described: str, aside: Aside) -> list[Message]:
        """The answer: text, turns as TRL has them in a completion, or calls of the functions that the row describes."""
        value = row.get(self.columns["output"])
        if isinstance(value, list | dict) and (turns := _as_turns(value)):
            return messages_of(turns, aside)
        if described and (calls := _as_calls(value)):
            return [{"role": "assistant", "content": "", "tool_calls": calls_of(calls, 1, aside)}]
        answer = as_text(value, self.columns["output"])
        if not answer.strip():
            raise RowError("empty output", droppable=True)
        return [{"role": "assistant", "content": answer}]

    def answer_column(self, row: Mapping[str, Any]) -> str | None:
        if self.name in ("alpaca", "qa"):
            return self.columns["output"] if self.columns["output"] in row else None
        return None if self.name == "text" else turn_column(row, self.columns) or None

    def _value(self, row: dict[str, Any], role: str) -> str:
        column = self.columns.get(role)
        return as_text(row.get(column) if column is not None else None, str(column))

    def _describing(self, row: Mapping[str, Any]) -> str:
        """The column that describes functions in this row; the empty string where none does."""
        names = (self.columns["tools"],) if "tools" in self.columns else _TOOLS
        return next((name for name in names if has_something(row.get(name))), "")

    def _tools_of_request(self, row: Mapping[str, Any]) -> object:
        request = next((row[self.columns[role]] for role in self._asking(row)), None)
        return next((request[name] for name in _TOOLS if name in request), None) if _is_request(request) else None

    def _needed(self) -> str:
        if "messages" in NEEDS[self.name]:
            return self.columns.get("messages", "conversations or messages")
        return " and ".join(self.columns[role] for role in NEEDS[self.name])


def _is_request(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a prompt has its messages as a request to OpenAI has them, beside tools and settings."""
    return isinstance(value, dict) and {"messages"} < value.keys() <= {"messages", "parallel_tool_calls", *_TOOLS}


def _begins_turns(value: object) -> bool:
    """Whether a value is text that may be turns in JSON."""
    return isinstance(value, str) and value.lstrip().startswith("[{")


def _as_turns(value: object) -> list[Any]:
    """The turns in a column that has them in place of a text; empty where they are none."""
    if isinstance(value, dict):
        value = value["messages"] if value.keys() == {"messages"} else [value]
    turns = value
    if not isinstance(turns, list) or not turns:
        return []
    fits = all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns)
    return turns if fits else []


def _as_calls(value: object) -> list[Any]:
    """The calls in an answer that is nothing else; empty where it is a text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = value_of(value)
        except (ValueError, RecursionError):
            return []
    if not isinstance(value, list):
        return []
    fits = all(isinstance(call, dict) and call.keys() >= {"name", "arguments"} for call in value)
    return value if fits else []


def _tools_of_turns(turns: Sequence[Any], aside: Aside) -> object:
    """Function descriptions that a system turn brings, where the row has none."""
    for turn in turns:
        if isinstance(turn, dict) and turn.get("role", turn.get("from")) in ("system", "developer"):
            found = next((name for name in _TOOLS if has_something(turn.get(name))), None)
            if found:
                aside.unused.discard(named("turn key", found))
                return turn[found]
    return None


def _history(value: object, aside: Aside) -> list[Message]:
    """Earlier rounds of a row: a list of [question, answer] pairs, or of turns. Raises RowError."""
    rounds = parsed(value, "history") if has_something(value) else None
    if not rounds:
        return []
    if turns := _as_turns(rounds):
        return messages_of(turns, aside)
    if not isinstance(rounds, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in rounds):
        raise RowError("history must be a list of [question, answer] pairs")
    return [
        {"role": role, "content": as_text(said, "history")}
        for pair in rounds
        for role, said in zip(("user", "assistant"), pair, strict=True)
    ]
