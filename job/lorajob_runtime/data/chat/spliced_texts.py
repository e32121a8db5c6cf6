"""Texts of a chat template put together from skeletons: one for each shape of what is rendered, found when it comes.

A shape is the roles of the messages and the template's options. What a skeleton gives is what the template writes, or
nothing where the contents would lead it another way; then the template is asked, as it is for all other messages.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lorajob_runtime.data.chat.render_function import RenderFunction
from lorajob_runtime.data.chat.traced_rendering import Skeleton, Tracer
from lorajob_runtime.data.rows.conversation import Message

_SHAPES_MAX = 1000
_ATTEMPTS = 6
"""Times that a shape is traced: each may show another way that the template takes."""


@dataclass(slots=True)
class _Shape:
    skeletons: list[Skeleton] = field(default_factory=list)
    attempts: int = 0


class SplicedTexts:
    """What one template writes of messages that have a role and a content only."""

    def __init__(self, source: str, tokens: Mapping[str, str], write: RenderFunction) -> None:
        """`tokens` are the variables that the template has beside its options; `write` is the template itself."""
        self._source = source
        self._tokens = tokens
        self._write = write
        self._shapes: dict[Hashable, _Shape] = {}

    def text(self, messages: Sequence[Message], *, parts: bool, options: Mapping[str, Any]) -> str | None:
        """The template's own text; None where it has to be asked. No other keys of the messages are looked at."""
        shape = self._shape(messages, parts, options)
        known = self._shapes.get(shape)
        if known is None:
            # what comes once only is cheaper to render
            if len(self._shapes) < _SHAPES_MAX:
                self._shapes[shape] = _Shape()
            return None
        contents = [message["content"] for message in messages]
        for skeleton in known.skeletons:
            if (text := skeleton.text(contents)) is not None:
                return text
        if known.attempts < _ATTEMPTS:
            known.attempts += 1
            self._trace(known, messages, contents, parts, options)
        return None

    @cached_property
    def _tracer(self) -> Tracer:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        return Tracer(self._source, _compile_jinja_template(self._source))

    def skeletons(self, messages: Sequence[Message], *, parts: bool, options: Mapping[str, Any]) -> list[Skeleton]:
        """What is known of messages of this shape."""
        known = self._shapes.get(self._shape(messages, parts, options))
        return known.skeletons if known is not None else []

    @staticmethod
    def _shape(messages: Sequence[Message], parts: bool, options: Mapping[str, Any]) -> Hashable:
        return (parts, *options.items(), *[message["role"] for message in messages])

    def _trace(
        self,
        shape: _Shape,
        messages: Sequence[Message],
        contents: Sequence[str],
        parts: bool,
        options: Mapping[str, Any],
    ) -> None:
        def shown(texts: Sequence[str]) -> list[Message]:
            said = [[{"type": "text", "text": text}] if parts else text for text in texts]
            return [
                {"role": message["role"], "content": content} for message, content in zip(messages, said, strict=True)
            ]

        # as transformers calls a template that has neither tools nor documents
        always = {"tools": None, "documents": None, "add_generation_prompt": False, **self._tokens}
        try:
            skeleton = self._tracer.trace(contents, lambda texts: {**always, **options, "messages": shown(texts)})
            if skeleton is not None and skeleton.text(contents) == self._write(shown(contents), tools=None, **options):
                shape.skeletons.append(skeleton)
        except Exception:  # noqa: BLE001 - whoever asks the template gets its error
            return
