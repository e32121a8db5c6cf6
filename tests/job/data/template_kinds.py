"""Small chat templates of our own, one for each kind that published ones show, over the tokens of ChatML."""

from __future__ import annotations

import copy
from typing import Any

_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_LIST = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
_CALLS = (
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>"
    "{% endfor %}"
)

KINDS = {
    "plain": "{% for m in messages %}" + _TURN + "{% endfor %}" + _ASK,
    # DeepSeek-R1: the prompt opens a thought, and no finished answer shows one
    "opens and drops thoughts": (
        "{% for m in messages %}{% set c = m.content.split('</think>')[-1] if m.role == 'assistant' else m.content %}"
        "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "drops thoughts that no prompt opens": (
        "{% for m in messages %}{% set c = m.content.split('</think>')[-1] if m.role == 'assistant' else m.content %}"
        "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}" + _ASK
    ),
    # Nemotron 3: an answer without a thought is shown with an empty one, in other blanks than the prompt's
    "shows an empty thought": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and '</think>' not in m.content %}<think></think>{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{{ '<think></think>' if enable_thinking is defined and not enable_thinking else '<think>\n' }}{% endif %}"
    ),
    # Qwen3: only the last answer is shown with a thought
    "shows the last thought": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% set t = m.reasoning_content or '' %}"
        "{% set c = m.content %}{% if m.reasoning_content is not defined and '</think>' in c %}"
        "{% set t = c.split('</think>')[0].split('<think>')[-1] %}{% set c = c.split('</think>')[-1].lstrip('\n') %}"
        "{% endif %}<|im_start|>assistant\n"
        "{% if loop.last %}<think>\n{{ t.strip('\n') }}\n</think>\n\n{% endif %}{{ c }}" + _CALLS + "<|im_end|>\n"
        "{% else %}" + _TURN + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking }}{% endif %}"
    ),
    "keeps thoughts in a field of another name": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.thinking %}<|think_start|>{{ m.thinking }}<|think_end|>{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}" + _ASK
    ),
    "lists tools and writes no calls": _LIST + "{% for m in messages %}" + _TURN + "{% endfor %}" + _ASK,
    # Llama 3.1
    "says nothing beside a call": (
        _LIST + "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}"
        "{{ raise_exception('one call at a time') }}{% endif %}<|im_start|>assistant\n" + _CALLS + "<|im_end|>\n"
        "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _ASK
    ),
    # gpt-oss: a call ends in a token of its own
    "writes the first call": (
        _LIST + "{% for m in messages %}{% if m.tool_calls %}<|im_start|>assistant\n{{ m.content }}"
        "<call>{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments | tojson }}<|called|>"
        "{% else %}" + _TURN + "{% endif %}{% endfor %}" + _ASK
    ),
    # Hunyuan
    "writes calls beside tools": (
        _LIST + "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% if tools %}" + _CALLS + "{% endif %}<|im_end|>\n{% endfor %}" + _ASK
    ),
    # DeepSeek-V3
    "wants arguments as text": (
        _LIST + "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ '<call>' + c.function.name + ' ' + c.function.arguments + '</call>' }}"
        "{% endfor %}<|im_end|>\n{% endfor %}" + _ASK
    ),
    # Phi-3
    "leaves out results of tools": (
        "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}"
        + _TURN
        + "{% endif %}{% endfor %}"
        + _ASK
    ),
    # SmolVLM, Idefics3
    "wants parts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'text' %}"
        "{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}" + _ASK
    ),
    # Gemma
    "has no system role and wants turns to alternate": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}" + _ASK
    ),
    # Qwen3.5
    "wants a question": (
        "{% if messages | selectattr('role', 'equalto', 'user') | list | length == 0 %}"
        "{{ raise_exception('No user query found in messages.') }}{% endif %}"
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
        "{{ raise_exception('System message must be at the beginning.') }}{% endif %}" + _TURN + "{% endfor %}" + _ASK
    ),
    "shows the date": (
        "<|im_start|>system\nToday is {{ strftime_now('%Y-%m-%d') }}.<|im_end|>\n{% for m in messages %}"
        + _TURN
        + "{% endfor %}"
        + _ASK
    ),
    "names features in a comment": (
        "{# enable_thinking, reasoning_content, <think> and tools are not supported #}{% for m in messages %}"
        + _TURN
        + "{% endfor %}"
        + _ASK
    ),
    "leaves out system turns that come later": (
        "{% for m in messages %}{% if m.role != 'system' or loop.first %}" + _TURN + "{% endif %}{% endfor %}" + _ASK
    ),
}
"""What is odd about it -> the template."""

_TOKENS = ["<|think_start|>", "<|think_end|>", "<|called|>"]


def tokenizer_of(kind: str, chatml: Any) -> Any:
    """A tokenizer that has ChatML's tokens, with the template of this kind."""
    tokenizer = copy.deepcopy(chatml)
    tokenizer.add_special_tokens({"additional_special_tokens": _TOKENS})
    tokenizer.chat_template = KINDS[kind]
    return tokenizer
