"""The Jinja source of a tokenizer's chat template, and the same with its clock stopped.

Training renders at a fixed moment, so that the same data gives the same tokens.
"""

from __future__ import annotations

from datetime import datetime

from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.data.chat.adapt_messages import Tools
from lorajob_runtime.data.chat.tokenizer import Tokenizer

_CLOCK = "strftime_now"
_CLOCK_CODES = ("%Y", "%y", "%m", "%B", "%b", "%d", "%-d", "%j", "%A", "%a", "%H", "%I", "%M", "%S", "%p", "%Z", "%z")


def template_source(tokenizer: Tokenizer, tools: Tools = None) -> str:
    try:
        source: str = tokenizer.get_chat_template(tools=tools)
    except ValueError as error:
        raise ModelError(
            "the model's tokenizer has no chat template: take an instruct model, or train rows of the form text"
        ) from error
    return source


def with_fixed_clock(moment: datetime | None, source: str) -> str:
    """The template with its clock stopped: a macro of the clock's name that fills in a fixed moment."""
    if moment is None or _CLOCK not in source:
        return source
    codes = "".join(f"|replace({code!r}, {moment.strftime(code)!r})" for code in _CLOCK_CODES)
    # The empty output keeps white space at the template's start from being trimmed with the macro's end.
    return f"{{% macro {_CLOCK}(form) %}}{{{{ form{codes} }}}}{{% endmacro %}}{{{{ '' }}}}{source}"
