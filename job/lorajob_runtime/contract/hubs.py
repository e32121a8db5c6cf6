"""The places that a base model comes from: one entry for each, with its name, address form and environment variables.

Standard library only, since the command line plans with these facts. The code that lists and downloads is the module in
`lorajob_runtime.fetch.hubs` that an entry names. docs/decisions.md says what a new hub touches.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Hub:
    """One place. Those with `is_model_hub` have repositories ORG/NAME, and a platform decides which of them are asked.

    `page` is a model's web page, with {id} for ORG/NAME. `catalog_field` is the key of a model's id in the catalog.
    """

    name: str
    """The `kind` of a Source, the folder in the cache, and the word in LORAJOB_HUBS and the platform's `hubs`."""
    title: str
    """The name that a person reads."""
    prefix: str = ""
    """How an address in a spec begins; a folder's path has no prefix."""
    example: str = ""
    """What follows the prefix, in messages."""
    module: str
    """In lorajob_runtime.fetch.hubs."""
    is_remote: bool = True
    """Whether its files are not on this machine before they are downloaded."""
    variables: tuple[str, ...] = ()
    """The beginnings of the environment variables that its client reads; no other process gets them."""
    default_revision: str = ""
    has_revisions: bool = False
    """Whether a user may ask for a branch, a tag or a commit."""
    tells_commit: bool = False
    """Whether a listing says which commit a branch is at."""
    is_model_hub: bool = False
    catalog_field: str = ""
    token_variable: str = ""
    endpoint_variable: str = ""
    """Overrides the address of the hub: a mirror, or a server of one's own."""
    cache_variable: str = ""
    """Where the client keeps its own files; a pod sets it to `cache_folder` on its work volume."""
    cache_folder: str = ""
    page: str = ""
    library: str = ""
    """The Python distribution of its client, where `lorajob version` has no other that tells its version."""

    @property
    def form(self) -> str:
        """What an address must look like, e.g. hf:ORG/NAME."""
        return self.prefix + self.example

    def address(self, model_id: str) -> str:
        """The address in a spec."""
        return self.prefix + model_id

    def page_of(self, model_id: str) -> str:
        """The web page of a model."""
        return self.page.format(id=model_id)


MODELSCOPE = Hub(
    name="modelscope",
    title="ModelScope",
    prefix="modelscope:",
    example="ORG/NAME",
    module="modelscope",
    variables=("MODELSCOPE_",),
    default_revision="master",
    has_revisions=True,
    is_model_hub=True,
    catalog_field="modelscope",
    token_variable="MODELSCOPE_API_TOKEN",  # noqa: S106 a name
    endpoint_variable="MODELSCOPE_ENDPOINT",
    cache_variable="MODELSCOPE_CACHE",
    cache_folder="modelscope",
    page="https://modelscope.cn/models/{id}",
    library="modelscope-hub",
)
HUGGING_FACE = Hub(
    name="hf",
    title="Hugging Face",
    prefix="hf:",
    example="ORG/NAME",
    module="huggingface",
    variables=("HF_", "HUGGING_FACE_", "HUGGINGFACE_"),
    default_revision="main",
    has_revisions=True,
    tells_commit=True,
    is_model_hub=True,
    catalog_field="huggingface",
    token_variable="HF_TOKEN",  # noqa: S106 a name
    endpoint_variable="HF_ENDPOINT",
    cache_variable="HF_HOME",
    cache_folder="huggingface",
    page="https://huggingface.co/{id}",
)
S3 = Hub(
    name="s3",
    title="S3",
    prefix="s3://",
    example="BUCKET/PREFIX",
    module="s3",
    variables=("AWS_", "LORAJOB_S3_"),
    default_revision="latest",
)
PACKAGE = Hub(
    name="package", title="a Python package", prefix="package:", example="NAME", module="package", is_remote=False
)
FOLDER = Hub(name="folder", title="a local folder", module="folder", is_remote=False)

ALL = (MODELSCOPE, HUGGING_FACE, S3, PACKAGE, FOLDER)
BY_NAME = {hub.name: hub for hub in ALL}

MODEL_HUBS = tuple(hub for hub in ALL if hub.is_model_hub)
NAMES = tuple(hub.name for hub in MODEL_HUBS)
"""Of the model hubs, in the order in which they are asked unless a platform says otherwise."""
NAMES_TEXT = " and ".join(filter(None, (", ".join(NAMES[:-1]), NAMES[-1])))
FORMS = ", ".join(hub.form for hub in MODEL_HUBS)
"""How the address of a model on a hub is written, for messages."""
SHORT_FORMS = ", ".join(f"{hub.prefix}ID" for hub in MODEL_HUBS)
"""The same where there is little room."""
PREFIXES = tuple(hub.prefix for hub in ALL if hub.prefix)
"""How an address begins that is no folder's path."""
MOVING_REVISIONS = (*dict.fromkeys(hub.default_revision for hub in ALL if hub.default_revision), "HEAD")
"""Names that mean another commit tomorrow."""


def parse(address: str) -> tuple[Hub, str] | None:
    """The place that an address names by its prefix, and what follows it; None for a bare name or a path."""
    hub = next((hub for hub in ALL if hub.prefix and address.startswith(hub.prefix)), None)
    return None if hub is None else (hub, address.removeprefix(hub.prefix))
