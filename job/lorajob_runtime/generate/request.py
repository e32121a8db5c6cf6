"""What `lorajob generate` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TextIO

from lorajob_runtime.contract.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One call. With neither `prompt` nor `file` it is a conversation. `system` None keeps training's system prompt."""

    target: str
    prompt: str | None = None
    file: str | None = None
    compare_base: bool = False
    system: str | None = None
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int | None = None
    seed: int | None = None
    storage: str = "runs"
    trust_remote_code: bool = False
    reasoning: Literal["auto", "show", "hide"] = "auto"
    """Whether what a model thinks before its answer is shown; auto: at a terminal. JSON lines have it always."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of range or two ways to ask at once."""
        if self.prompt is not None and self.file is not None:
            raise ConfigError("--prompt and --file are given: it must be one of them, or neither for a conversation")
        if self.max_new_tokens < 1:
            raise ConfigError(f"--max-new-tokens is {self.max_new_tokens}: it must be at least 1")
        if not 0 <= self.temperature <= 10:
            raise ConfigError(f"--temperature is {self.temperature:g}: it must be from 0 to 10")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"--top-k is {self.top_k}: it must be at least 1")
        if self.temperature == 0 and (self.top_k or 1) > 1:
            raise ConfigError("--top-k needs --temperature: without it the likeliest token is taken each time")

    def shows_reasoning(self, stdout: TextIO) -> bool:
        """The same with `auto` decided."""
        return self.reasoning == "show" or (self.reasoning == "auto" and stdout.isatty())
