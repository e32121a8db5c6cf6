"""A loaded model that answers: streamed, one conversation at a time, or many side by side."""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorajob_runtime.contract.errors import DataError, LorajobError, ModelError, OutOfMemoryError
from lorajob_runtime.contract.spec import ModelSpec
from lorajob_runtime.contract.text import error_line
from lorajob_runtime.data.chat import reasoning
from lorajob_runtime.data.chat.adapt_messages import Tools
from lorajob_runtime.data.chat.inference import prompt_ids, stop_ids
from lorajob_runtime.data.chat.tokenizer import (
    Tokenizer,
    decode,
    decode_answer,
    encode,
    load_tokenizer,
    needs_code,
    start_ids,
)
from lorajob_runtime.data.rows.conversation import Message

Conversation = Sequence[Message]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is chosen. At temperature 0 the likeliest; else the model's own top-k and top-p hold."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int | None = None
    seed: int | None = None

    def options(self) -> dict[str, Any]:
        """Arguments of transformers' `generate`."""
        if self.temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature} | ({"top_k": self.top_k} if self.top_k else {})


class Generator:
    """A base model with its adapter. `base=True` asks the base model alone, without loading it again."""

    def __init__(self, model: Any, tokenizer: Tokenizer, *, thinking: bool) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._thinking = thinking
        self._stops = stop_ids(tokenizer)

    @classmethod
    def load(cls, base: ModelSpec, model: Path, adapter: Path, *, thinking: bool) -> Generator:
        """Loads the base from the folder `model`, and the adapter, on the GPUs, or on the CPU where there are none.

        Raises ModelError when they cannot be loaded or do not go together, ConfigError, OutOfMemoryError.
        """
        # PEFT imports bitsandbytes, which warns of a package that would make it faster on some CPUs
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        import torch
        from peft import PeftModel
        from transformers.utils import logging as transformers_logging

        from lorajob_runtime.train.base_model import loading
        from lorajob_runtime.train.base_model.forward import DTYPES, choose_precision
        from lorajob_runtime.train.lora import linear
        from lorajob_runtime.train.lora.dropout import DropoutMasks

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        warnings.simplefilter("ignore", FutureWarning)  # among libraries; nothing that who asks could change
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        spread = {"device_map": "auto"} if device.type == "cuda" else {}
        loaded = loading.load(model, base, DTYPES[choose_precision("auto", device)], device, **spread)
        try:
            tuned = PeftModel.from_pretrained(loaded, str(adapter)).eval()
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(error) from error
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise ModelError(
                f"the adapter {adapter} cannot be loaded on {model}: {error_line(error, limit=1000)}"
            ) from error
        # PEFT adds an adapter of experts to their whole stack of weights for every token
        linear.fuse(tuned, DropoutMasks())
        return cls(tuned, _tokenizer(base, model, adapter), thinking=thinking)

    def prompt(self, conversation: Conversation, tools: Tools = None) -> list[int]:
        """Token ids that are sent, as training put them before an answer. Raises DataError when they do not fit."""
        if self._tokenizer.chat_template:
            ids = prompt_ids(self._tokenizer, conversation, self._thinking, tools)
        else:
            # a model that was trained on plain text goes on with it
            text = "\n".join(message["content"] for message in conversation)
            ids = start_ids(self._tokenizer) + encode(self._tokenizer, [text])[0]
        foreign = next((each for each in ids if each >= self._rows), None)
        if foreign is not None:
            token = self._tokenizer.convert_ids_to_tokens(foreign)
            raise DataError(
                f"the conversation has the token {token!r} (id {foreign}), "
                f"and the model's embedding has {self._rows} rows",
                hint="take the tokenizer that belongs to the weights, or leave the token out",
            )
        if len(ids) >= self._window:
            raise DataError(f"the conversation has {len(ids)} tokens, and the model takes {self._window}", hint="")
        return ids

    def opens_thought(self, conversation: Conversation, tools: Tools = None) -> bool:
        """Whether the prompt ends in an open thought, so that the answer begins inside it."""
        return reasoning.opens_thought(
            decode(self._tokenizer, self.prompt(conversation, tools)[-reasoning.MARK_TOKENS :])
        )

    def stream(self, conversation: Conversation, sampling: Sampling, *, base: bool = False) -> Iterator[str]:
        """The answer in pieces as it is made. Closing the iterator ends it."""
        ids = self.prompt(conversation)
        stop = threading.Event()
        tokens: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

        def answer() -> None:
            try:
                self._generate([ids], sampling, base=base, streamer=_Streamer(tokens), stop=stop)
            except BaseException as error:  # noqa: BLE001 - raised again where the answer is read
                tokens.put(error)
            tokens.put(None)

        worker = threading.Thread(target=answer, name="generate", daemon=True)
        worker.start()
        try:
            yield from self._pieces(tokens)
        finally:
            stop.set()
            worker.join()

    def batch(self, prompts: Sequence[list[int]], sampling: Sampling, *, base: bool = False) -> list[str]:
        """The answers to several prompts, made side by side."""
        return [self._text(ids).strip() for ids in self._generate(prompts, sampling, base=base)]

    def _generate(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        *,
        base: bool,
        streamer: _Streamer | None = None,
        stop: threading.Event | None = None,
    ) -> list[list[int]]:
        """The token ids of the answers."""
        import torch

        from lorajob_runtime.train import answering

        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        adapter: AbstractContextManager[Any] = self._model.disable_adapter() if base else nullcontext()
        criteria = [lambda ids, _, **__: torch.full((len(ids),), stop.is_set(), device=ids.device)] if stop else []
        try:
            with adapter, torch.inference_mode():
                return answering.answer(
                    self._model,
                    prompts,
                    device=self._model.device,
                    stop_ids=self._stops,
                    pad_id=self._tokenizer.pad_token_id,
                    max_new_tokens=sampling.max_new_tokens,
                    stopping_criteria=criteria,
                    streamer=streamer,
                    **sampling.options(),
                )
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(error) from error

    def _pieces(self, tokens: queue.SimpleQueue[int | BaseException | None]) -> Iterator[str]:
        """Text as whole characters come. What a token says depends on the ones before."""
        ids: list[int] = []
        known, shown = 0, 0
        while (token := tokens.get()) is not None:
            if isinstance(token, BaseException):
                raise token
            ids.append(token)
            before, text = self._text(ids[known:shown]), self._text(ids[known:])
            if len(text) > len(before) and not text.endswith("\ufffd"):
                yield text[len(before) :]
                known, shown = shown, len(ids)
        if rest := self._text(ids[known:])[len(self._text(ids[known:shown])) :]:
            yield rest

    def _text(self, ids: Sequence[int]) -> str:
        """Text of answer ids up to the token that ended it."""
        ends = (index for index, token in enumerate(ids) if token in self._stops)
        return decode_answer(self._tokenizer, ids[: next(ends, len(ids))])

    @property
    def _rows(self) -> int:
        """Rows of the embedding: how many token ids the model knows."""
        return int(self._model.get_input_embeddings().weight.shape[0])

    @property
    def _window(self) -> int:
        from lorajob_runtime.train import answering

        return answering.window(self._model)


class _Streamer:
    """Hands token ids on as transformers makes them; what comes first is the prompt."""

    def __init__(self, tokens: queue.SimpleQueue[int | BaseException | None]) -> None:
        self._tokens = tokens
        self._prompt_seen = False

    def put(self, ids: Any) -> None:
        if self._prompt_seen:
            for token in ids.flatten().tolist():
                self._tokens.put(token)
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing to do: the thread's end says it."""


def _tokenizer(base: ModelSpec, model: Path, adapter: Path) -> Tokenizer:
    """The adapter's own, which is training's; one that needs code is the base's, of which alone code may run."""
    if (adapter / "tokenizer.json").is_file() and not needs_code(adapter):
        return load_tokenizer(adapter)
    return load_tokenizer(model, trust_remote_code=base.trust_remote_code)


def _out_of_memory(error: BaseException) -> LorajobError:
    return OutOfMemoryError(
        f"the model does not fit: {error_line(error, limit=1000)}", hint="use a GPU with more memory, or fewer tokens"
    )
