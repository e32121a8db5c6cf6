"""Follows what a chat template does with what is said, so that its text can be put together without it.

A template is rendered once with strings in place of contents that write down all that is asked of them. What comes out
is the text as constants and contents, and under which answers it is so. Whatever else a template does with a content
(counts it, cuts it, hands it to a function) ends the attempt: then nothing is known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import BuiltinFunctionType
from typing import Any

_MARK = "harbourtraced"
"""What a traced content is to whoever does not ask it: in the text it shows that this happened."""

Part = str | int
"""A constant, or the number of a value: of a content, or of what was made of earlier values."""
Parts = tuple[Part, ...]

_ASKED = ("startswith", "endswith", "__contains__", "__eq__", "__ne__", "__bool__")
_MADE = ("strip", "lstrip", "rstrip")
_KEPT = frozenset(
    (
        *("__new__", "__init__", "__class__", "__doc__", "__getattribute__", "__setattr__", "__delattr__", "__dir__"),
        *("__init_subclass__", "__subclasshook__", "__add__", "__str__"),
    )
)
_FILTERS = frozenset(
    (
        *("trim", "length", "count", "list", "first", "last", "tojson", "default", "d", "items", "map", "join"),
        *("selectattr", "rejectattr", "select", "reject", "reverse", "upper", "lower", "capitalize", "title"),
        *("replace", "string", "safe", "int", "float", "dictsort", "indent"),
    )
)
"""Filters that are functions of Python, whose questions are seen, or guarded here."""
_GLOBALS_LEFT = ("lipsum", "cycler", "joiner")
_LOOKED_FOR, _CONCATENATED = "lorajob_looked_for", "lorajob_concatenated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Skeleton:
    """A rendering as a function of its contents. `made` are values from earlier ones; `asked` must be answered so."""

    output: Parts
    made: tuple[tuple[Parts, str, tuple[Any, ...]], ...]
    asked: tuple[tuple[Parts, str, tuple[Any, ...], bool], ...]

    def text(self, contents: Sequence[str]) -> str | None:
        """The text with other contents; None where the template would have taken another way."""
        values = list(contents)
        for parts, method, arguments in self.made:
            values.append(getattr(joined(parts, values), method)(*arguments))
        for parts, method, arguments, answer in self.asked:
            if answered(joined(parts, values), method, arguments) is not answer:
                return None
        return joined(self.output, values)


def joined(parts: Parts, values: Sequence[str]) -> str:
    """Constants and values as one text."""
    return "".join([part if part.__class__ is str else values[part] for part in parts])  # type: ignore[index]


def answered(value: str, method: str, arguments: tuple[Any, ...]) -> bool:
    """What a value answers when it is asked."""
    if method == "__bool__":
        return bool(value)
    return bool(getattr(value, method)(*arguments))


class Tracer:
    """Traces renderings of one template."""

    def __init__(self, source: str, template: Any) -> None:
        """`template` is `source` as the environment in which it is rendered has compiled it."""
        environment = template.environment.overlay()
        self._sandbox_call: Callable[..., Any] = template.environment.call
        environment.concat = _concatenated
        environment.call = self._call
        environment.filters = environment.filters | {
            "tojson": _guarded(environment.filters["tojson"]),
            _LOOKED_FOR: _guarded(lambda value: value),
            _CONCATENATED: lambda values: _concatenated(
                [each if isinstance(each, str) else str(each) for each in values]
            ),
        }
        of_text = {name: _of_text(environment.tests[name]) for name in ("iterable", "sequence")}
        environment.tests = environment.tests | of_text
        self._template = _compiled(environment, source)

    def trace(
        self, contents: Sequence[str], variables: Callable[[Sequence[str]], Mapping[str, Any]]
    ) -> Skeleton | None:
        """What becomes of these contents, with which `variables` makes the template's; None where that is unknown.

        Raises what the template raises.
        """
        if self._template is None:
            return None
        trace = _Trace()
        output = self._template.render(**variables([trace.content(value) for value in contents]))
        if trace.is_lost:
            return None
        parts = output.parts if isinstance(output, _Traced) else (str(output),)
        every = [*parts, *chain.from_iterable(step[0] for step in trace.made)]
        every += chain.from_iterable(step[0] for step in trace.asked)
        if any(isinstance(part, str) and _MARK in part.lower() for part in every):
            return None
        return Skeleton(output=_merged(parts), made=tuple(trace.made), asked=tuple(trace.asked))

    def _call(self, context: Any, called: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(called, BuiltinFunctionType):
            # jinja2's own arguments are the variables of a loop
            given = {name: value for name, value in named.items() if not name.startswith("_")}
            _lose(_traced_in((arguments, given)))
        return self._sandbox_call(context, called, *arguments, **named)


def _compiled(environment: Any, source: str) -> Any:
    """The template with what looks at a content unseen put differently; None where that is not possible."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    class Transparent(NodeTransformer):
        def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802 jinja2 has it so
            if any(operand.op in ("in", "notin") for operand in node.ops) and not isinstance(node.expr, nodes.Const):
                # the container is asked
                node.expr = nodes.Filter(node.expr, _LOOKED_FOR, [], [], None, None)
            return self.generic_visit(node)

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
            joined = nodes.Filter(nodes.List(node.nodes), _CONCATENATED, [], [], None, None)
            return self.generic_visit(joined)

    tree = environment.parse(source)
    if any(each.name not in _FILTERS for each in tree.find_all(nodes.Filter)):
        return None
    if any(each.name in _GLOBALS_LEFT for each in tree.find_all(nodes.Name)):
        return None
    if any(len(each.ops) > 1 for each in tree.find_all(nodes.Compare)):
        return None
    changed = Transparent().visit(tree)
    changed.set_environment(environment)
    return environment.from_string(changed)


@dataclass(slots=True)
class _Trace:
    made: list[tuple[Parts, str, tuple[Any, ...]]] = field(default_factory=list)
    asked: dict[tuple[Parts, str, tuple[Any, ...], bool], None] = field(default_factory=dict)
    contents: int = 0
    is_lost: bool = False

    def content(self, value: str) -> _Traced:
        self.contents += 1
        return _Traced(self, (self.contents - 1,), value)


class _Traced(str):
    """A string that is only its mark to the interpreter, and answers every question by its `value`."""

    trace: _Trace
    parts: Parts
    value: str

    def __new__(cls, trace: _Trace, parts: Parts, value: str) -> _Traced:
        made = super().__new__(cls, _MARK)
        made.trace, made.parts, made.value = trace, parts, value
        return made

    def __add__(self, other: str) -> str:
        return _plus(self, other) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return _plus(other, self) if isinstance(other, str) else NotImplemented

    def __str__(self) -> str:
        # a template's own code writes it as it stands; others may do anything with it
        if sys._getframe(1).f_code.co_filename != "<template>":
            self.trace.is_lost = True
        return self


def _plus(one: str, other: str) -> _Traced:
    joined = _concatenated((one, other))
    assert isinstance(joined, _Traced)  # noqa: S101 one of them is
    return joined


def _concatenated(pieces: Iterable[str]) -> str:
    every = list(pieces)
    traced = next((piece for piece in every if isinstance(piece, _Traced)), None)
    if traced is None:
        return "".join(every)
    parts = [part for piece in every for part in (piece.parts if isinstance(piece, _Traced) else (piece,))]
    value = "".join([piece.value if isinstance(piece, _Traced) else piece for piece in every])
    return _Traced(traced.trace, _merged(parts), value)


def _merged(parts: Iterable[Part]) -> Parts:
    """The same with neighbouring constants in one."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return tuple(merged)


def _asks(method: str) -> Callable[..., Any]:
    def ask(self: _Traced, *arguments: Any) -> Any:
        if method in ("__eq__", "__ne__") and not isinstance(arguments[0], str):
            return NotImplemented
        if any(True for _ in _traced_in(arguments)) or not all(isinstance(each, str | tuple) for each in arguments):
            self.trace.is_lost = True
            return False
        answer = answered(self.value, method, arguments)
        self.trace.asked[self.parts, method, arguments, answer] = None
        return answer

    return ask


def _makes(method: str) -> Callable[..., Any]:
    def make(self: _Traced, *arguments: Any) -> Any:
        if not all(each is None or type(each) is str for each in arguments):
            self.trace.is_lost = True
            return ""
        trace = self.trace
        trace.made.append((self.parts, method, arguments))
        number = trace.contents + len(trace.made) - 1
        return _Traced(trace, (number,), getattr(self.value, method)(*arguments))

    return make


def _split(self: _Traced, separator: str | None = None, maxsplit: int = -1) -> list[Any]:
    """Where the separator is not there, all in one."""
    if isinstance(separator, str) and separator and not isinstance(separator, _Traced) and separator not in self:
        return [self]
    self.trace.is_lost = True
    return self.value.split(separator, maxsplit)


def _loses(method: str) -> Callable[..., Any]:
    def lose(self: _Traced, *arguments: Any, **named: Any) -> Any:
        self.trace.is_lost = True
        return getattr(self.value, method)(*arguments, **named)

    return lose


for _name in {*dir(str), "__bool__", "__rmod__", "__rmul__"} - _KEPT:
    if _name in _ASKED:
        setattr(_Traced, _name, _asks(_name))
    elif _name in _MADE:
        setattr(_Traced, _name, _makes(_name))
    else:
        setattr(_Traced, _name, _split if _name == "split" else _loses(_name))


def _traced_in(value: Any) -> Iterable[_Traced]:
    if isinstance(value, _Traced):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _traced_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _traced_in(item)


def _lose(traced: Iterable[_Traced]) -> None:
    for each in traced:
        each.trace.is_lost = True


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that looks at its arguments unseen."""

    def guarded(*arguments: Any, **named: Any) -> Any:
        _lose(_traced_in((arguments, named)))
        return function(*arguments, **named)

    return guarded


def _of_text(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A test that is the same for every text."""
    return lambda value: test("" if isinstance(value, _Traced) else value)
