"""Whether a conversation is trained as it is, or what of it is not is said."""

from __future__ import annotations

from typing import Any

from lorajob_runtime.data.chat.adapt_messages import NO_FORM, SWITCHED_OFF
from lorajob_runtime.data.chat.lost_content import BLANKS_CUT, SAID_BESIDE_CALL
from lorajob_runtime.data.chat.tokenizer import decode, encode
from lorajob_runtime.data.encode import Encoded, Encoder
from lorajob_runtime.data.rows.conversation import Conversation, Message, RowError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The sky over a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _said(content: str, **more: Any) -> Message:
    return {"role": "assistant", "content": content} | more


def _call(*cities: str, content: str = "") -> Message:
    calls = [
        {"type": "function", "id": f"abcdef12{n}", "function": {"name": "weather", "arguments": {"city": city}}}
        for n, city in enumerate(cities)
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def _result(content: str, number: int = 0) -> Message:
    return {"role": "tool", "name": "weather", "tool_call_id": f"abcdef12{number}", "content": content}


_ASKED, _SEVEN = _user("How many?"), _said("It is seven.")

TALKS: dict[str, list[Message]] = {
    "single": [_ASKED, _SEVEN],
    "system": [{"role": "system", "content": "Be brief."}, _ASKED, _SEVEN],
    "multi": [_ASKED, _SEVEN, _user("And?"), _said("Eight then.")],
    "long": [turn for n in range(7) for turn in (_user(f"Round {n}?"), _said(f"It is {n}.\n\nYes."))],
    "thought": [_ASKED, _said("<think>\nBecause seven.\n</think>\n\nIt is seven.")],
    "thought in a field": [_ASKED, _said("It is seven.", reasoning_content="Because seven.")],
    "thoughts in every answer": [
        turn for n in range(6) for turn in (_user(f"Round {n}?"), _said(f"It is {n}.", reasoning_content=f"So {n}."))
    ],
    "blanks": [_user("Write code"), _said("    indented()\n    more()\n")],
    "two questions": [_user("How"), _user("many?"), _SEVEN],
    "two answers": [_ASKED, _SEVEN, _said("Or eight."), _user("And?"), _said("Nine.")],
    "about the mark": [_user("Which?"), _said("The tag </think> ends it. Then comes the answer.")],
    "about the mark, with a thought": [_user("Which?"), _said("It is </think>, he said.", reasoning_content="Marks.")],
    "greeting": [_said("Welcome."), _ASKED, _SEVEN],
    "greeting behind a system prompt": [{"role": "system", "content": "S"}, _said("Welcome."), _ASKED, _SEVEN],
    "late system turn": [_ASKED, _SEVEN, {"role": "system", "content": "Be loud."}, _user("And?"), _said("EIGHT.")],
    "masked": [_ASKED, _SEVEN | {"trained": False}, _user("And?"), _said("Eight then.")],
}
CALLS: dict[str, list[Message]] = {
    "call": [_user("Oslo?"), _call("Oslo"), _result("3"), _said("3 degrees")],
    "words and a call": [_user("Oslo?"), _call("Oslo", content="Let me look."), _result("3"), _said("3 degrees")],
    "two calls": [_user("Oslo, Bern?"), _call("Oslo", "Bern"), _result("3"), _result("9", 1), _said("3 and 9")],
    "one call after the other": [
        _user("Oslo, Bern?"), _call("Oslo"), _call("Bern"), _result("3"), _result("9", 1), _said("3 and 9")
    ],
    "words, then a call": [_user("Oslo?"), _said("Let me look."), _call("Oslo"), _result("3"), _said("3 degrees")],
}  # fmt: skip


def conversation(name: str) -> Conversation:
    """One of TALKS or CALLS."""
    return Conversation(messages=(TALKS | CALLS)[name], tools=TOOLS if name in CALLS else None)


def encoded(encoder: Encoder, item: Conversation) -> Encoded | RowError:
    """What the encoder makes of a conversation."""
    (result,) = encoder.rows([item])
    return result


def wrongs(encoder: Encoder, item: Conversation) -> list[str]:
    """What is neither right nor said. A row that is left out with its reason is said to be."""
    result = encoded(encoder, item)
    if isinstance(result, RowError):
        return []
    found: list[str] = []
    trained = 0
    for place, message in enumerate(item.messages):
        asked = any(earlier["role"] in ("user", "tool") for earlier in item.messages[:place])
        if message["role"] != "assistant" or not asked or not message.get("trained", True):
            continue
        prompt = encode(encoder.tokenizer, [encoder.template.prompt(item.messages[:place], item.tools)])[0]
        piece = _piece(encoder, result, prompt)
        if piece is None:
            found.append(f"answer {place} does not stand behind what inference sends")
            continue
        trained += len(piece)
        text = decode(encoder.tokenizer, piece)
        found += [f"answer {place}: {wrong}: {text!r}" for wrong in _lost(text, message, result.notes)]
        if decode(encoder.tokenizer, piece[-1:]) not in encoder.template.stop_tokens():
            found.append(f"answer {place} does not end: {text!r}")
        marks = text.count("</think>") - message["content"].count("</think>")
        if marks > 1:
            found.append(f"answer {place} ends {marks} thoughts: {text!r}")
    if trained != sum(int(targets.sum()) for _, targets in result.sequences):
        found.append("more is trained than the answers")
    return found


def _piece(encoder: Encoder, result: Encoded, prompt: list[int]) -> list[int] | None:
    """The trained tokens right behind a prompt, up to the first that ends an answer."""
    stops = set(encoder.tokenizer.convert_tokens_to_ids(encoder.template.stop_tokens()))
    for ids, targets in result.sequences:
        if len(ids) > len(prompt) and ids[: len(prompt)].tolist() == prompt and targets[len(prompt)]:
            rest = list(zip(ids[len(prompt) :].tolist(), targets[len(prompt) :].tolist(), strict=True))
            end = next((n for n, (token, on) in enumerate(rest, start=1) if token in stops or not on), len(rest))
            return [token for token, _ in rest[:end]]
    return None


def _lost(text: str, message: Message, notes: tuple[str, ...]) -> list[str]:
    lost = []
    thought, answer = message.get("reasoning_content", ""), message["content"]
    if answer.startswith("<think>"):
        thought, _, answer = answer.removeprefix("<think>").partition("</think>")
    if thought.strip() not in text and not {SWITCHED_OFF, NO_FORM} & set(notes):
        lost.append("the thought is lost")
    if answer.strip() not in text and not (message.get("tool_calls") and SAID_BESIDE_CALL in notes):
        lost.append("the answer is lost")
    elif answer.lstrip("\n") not in text and not {BLANKS_CUT, SAID_BESIDE_CALL} & set(notes):
        lost.append("blanks are lost")
    cities = [call["function"]["arguments"]["city"] for call in message.get("tool_calls", ())]
    return lost + [f"the call for {city} is lost" for city in cities if city not in text or "weather" not in text]
