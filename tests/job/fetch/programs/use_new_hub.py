"""Uses a model on a hub as a run's both sides do, and prints what came of it as JSON."""

from __future__ import annotations

import json
from typing import Any

from lorajob.platform import platform_parsing
from lorajob.submit import manifest, preview
from lorajob_runtime import fetch
from lorajob_runtime.contract import spec as specs
from lorajob_runtime.contract.errors import LorajobError
from lorajob_runtime.models import provenance
from lorajob_runtime.system import environment

PLATFORM = {
    "image": "lorajob:0.1.0",
    "storage": {"uri": "s3://bucket/prefix"},
    "hubs": ["acme", "hf"],
    "hubEndpoints": {"acme": "http://10.0.0.1:8080"},
}


def main() -> None:
    spec = specs.parse({"name": "tiny", "model": {"name": "acme:acme/tiny-chat"}})
    platform = platform_parsing.parse(PLATFORM, "platform.yaml")
    container = manifest.build(spec, platform, namespace="team", version="0").job["spec"]["template"]["spec"][
        "containers"
    ][0]
    settings = environment.read()
    model = fetch.fetch(spec.model, environment=settings, notify=lambda line: None)
    print(
        json.dumps(
            {
                "weights": preview.weights_text(spec, platform),
                "variables": {each["name"]: each.get("value") for each in container["env"]},
                "hubs": settings.hubs,
                "files": {path.name: len(path.read_bytes()) for path in model.path.iterdir()},
                "source": [model.source, model.revision],
                "page": provenance.describe(model.source, model.revision).page,
                "keys": sorted(environment.for_hub("acme")),
                "missing": _refusal({"name": "acme:acme/none"}, settings),
                "misspelt": _refusal({"name": "acme:tiny-chat"}, settings),
                "moving": _refusal({"name": "acme:acme/x", "trustRemoteCode": True, "revision": "main"}, settings),
                "folder": str(model.path.relative_to(settings.cache)),
            }
        )
    )


def _refusal(model: dict[str, Any], settings: environment.Environment) -> list[str]:
    try:
        fetch.fetch(specs.parse({"model": model}).model, environment=settings, notify=lambda line: None)
    except LorajobError as error:
        return [error.failure.name, error.message, error.hint]
    return []


if __name__ == "__main__":
    main()
