"""Chooses which of a repository's files training needs, and checks that a folder has them. Only a folder is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lorajob_runtime.contract import file_signatures
from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.models.config_files import CHAT_TEMPLATE, CONFIG, TOKENIZER_CONFIG


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file as a hub lists it. `digest` is `sha256:…` or `git-sha1:…` (a git blob's), empty where none is given."""

    path: str
    size: int
    digest: str = ""


INSPECTED = (CONFIG, TOKENIZER_CONFIG, CHAT_TEMPLATE)
"""What tells that a model is not the one for a run: looked at before any weights are there."""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "*.tiktoken")
_SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "LICENCE*", "NOTICE*")
_WEIGHTS = "*.safetensors"
_MAIN_WEIGHTS = "model*.safetensors"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_CODE = "*.py"
_NO_PROSE = ("*.json", "*.model", "*.tiktoken")
_TEMPLATES = "additional_chat_templates/*.jinja"
_INDEX = "model.safetensors.index.json"


def choose(
    files: Iterable[RemoteFile], *, remote_code: bool, source: str, with_weights: bool = True
) -> list[RemoteFile]:
    """The files to download: configuration and chat template, then the smallest first, so that a repository that
    cannot be used shows before its weights come.

    Pickled weights, other formats' copies and sub-folders stay out; Python files come only with `remote_code`.
    Raises ModelError when what must be there is not.
    """
    listed = {file.path: file for file in files if _is_plain(file.path)}
    patterns = (*_SMALL, _TEMPLATES, _CODE) if remote_code else (*_SMALL, _TEMPLATES)
    weights = _matching(listed, _MAIN_WEIGHTS) or _matching(listed, _WEIGHTS)
    names = {*_matching(listed, *patterns), *(weights if with_weights else ())}
    check_names(set(listed), source)
    return sorted((listed[name] for name in names), key=lambda file: (file.path not in INSPECTED, file.size, file.path))


def check_names(names: set[str], source: str) -> None:
    """Raises ModelError unless the names have a configuration, safetensors weights and a tokenizer among them."""
    if CONFIG not in names:
        raise ModelError(f"{source} has no config.json: it is not a model that transformers can load")
    if not _matching(names, _WEIGHTS):
        if _matching(names, *_PICKLED):
            raise ModelError(
                f"{source} has pickled weights only, which can run any code when they are loaded: "
                "it must have *.safetensors"
            )
        raise ModelError(f"{source} has no weights: it must have *.safetensors")
    if not _matching(names, *_TOKENIZERS):
        raise ModelError(f"{source} has no tokenizer: it must have tokenizer.json or tokenizer.model")


def check_folder(folder: Path, source: str, *, with_weights: bool = True) -> None:
    """Raises ModelError unless the folder holds a model that can be loaded: all shards that its index names, too.

    Without `with_weights` its configuration and tokenizer are enough.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    check_names(names if with_weights else names | {"model.safetensors"}, source)
    for name in sorted(_matching(names, *_NO_PROSE, *((_WEIGHTS,) if with_weights else ()))):
        if (said := file_signatures.stand_in(folder / name)) is not None:
            raise ModelError(
                f"{name} of {source} {said}", hint="put the model's own files there and run the command again"
            )
    try:
        json.loads((folder / CONFIG).read_bytes())
        index = json.loads((folder / _INDEX).read_bytes()) if _INDEX in names else {}
        missing = sorted(set(index.get("weight_map", {}).values()) - names) if with_weights else []
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{source} has a config.json or {_INDEX} that is not JSON: {error}") from error
    if missing:
        raise ModelError(f"{source} lacks {missing[0]}, and {len(missing) - 1} more weight files of its index")


def _matching(names: Iterable[str], *patterns: str) -> list[str]:
    return [name for name in names if any(_matches(name, pattern) for pattern in patterns)]


def _matches(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^/]*"), name) is not None


def _is_plain(path: str) -> bool:
    """Whether a listed path stays inside the folder it is written to. Repositories are not to be trusted."""
    return bool(path) and "\\" not in path and not path.startswith((".", "/")) and "/." not in path and "//" not in path
