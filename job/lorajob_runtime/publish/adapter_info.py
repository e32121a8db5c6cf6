"""lorajob.json beside an adapter: what `lorajob generate` must know to ask the model as training did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from lorajob_runtime.contract import hubs
from lorajob_runtime.contract.errors import ModelError
from lorajob_runtime.contract.spec import ModelSpec

FILE = "lorajob.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterInfo:
    """Of which run an adapter is, on which base, and how its prompts were made.

    `source` and `revision` are FetchedModel's: they find the same base weights again.
    """

    run: str
    model: str
    source: str
    revision: str
    system: str | None
    thinking: bool
    quantize: Literal["nf4"] | None = None

    def base(self, *, trust_remote_code: bool) -> ModelSpec:
        """The base model to fetch. Whether its code may run is the caller's word, never the adapter's."""
        parsed = hubs.parse(self.source)
        has_revisions = parsed is not None and parsed[0].has_revisions
        return ModelSpec(
            name=self.model,
            source=self.source,
            revision=self.revision if has_revisions else None,
            trust_remote_code=trust_remote_code,
            quantize=self.quantize,
        )

    def write(self, folder: Path) -> None:
        """Puts the file into an adapter's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> AdapterInfo | None:
    """What lies in an adapter's folder; None where there is none. Raises ModelError for one that cannot be read."""
    if not (folder / FILE).is_file():
        return None
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        known = {field.name: values[field.name] for field in fields(AdapterInfo) if field.name in values}
        return AdapterInfo(**known)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{folder / FILE} cannot be read ({type(error).__name__}): it says which model the adapter is for",
            hint="copy the adapter's folder again; without that file the adapter is asked without its system prompt",
        ) from error
