"""RunSpec: everything that says what a run is. The contract between the command line and the container.

Standard library only, frozen, versioned, strict. The file form is YAML or JSON with camelCase keys. A field is one
entry in `fields.py` with all that is to be said of it; what reads fields goes through `listing.every_field`.
"""

from lorajob_runtime.contract.spec.difference import Change, changes
from lorajob_runtime.contract.spec.fields import (
    DataSpec,
    LoraSpec,
    ModelSpec,
    ReportSpec,
    ResourcesSpec,
    RunSpec,
    SamplesSpec,
    StorageSpec,
    SwanLabSpec,
    TrainSpec,
)
from lorajob_runtime.contract.spec.file_form import API_VERSION, check_version, dumps, loads, parse, to_dict
from lorajob_runtime.contract.spec.listing import SpecField, every_field, field_at, value_at
from lorajob_runtime.contract.spec.merging import merge, nest
from lorajob_runtime.contract.spec.naming import NAME_MAX_LENGTH, default_name, valid_name
from lorajob_runtime.contract.spec.option import Command
from lorajob_runtime.contract.spec.rules import COLUMN_ROLES, FOLDERS, dropped_share, row_slice
from lorajob_runtime.contract.spec.validation import check_pinned, validate

__all__ = [
    "API_VERSION",
    "COLUMN_ROLES",
    "FOLDERS",
    "NAME_MAX_LENGTH",
    "Change",
    "Command",
    "DataSpec",
    "LoraSpec",
    "ModelSpec",
    "ReportSpec",
    "ResourcesSpec",
    "RunSpec",
    "SamplesSpec",
    "SpecField",
    "StorageSpec",
    "SwanLabSpec",
    "TrainSpec",
    "changes",
    "check_pinned",
    "check_version",
    "default_name",
    "dropped_share",
    "dumps",
    "every_field",
    "field_at",
    "loads",
    "merge",
    "nest",
    "parse",
    "row_slice",
    "to_dict",
    "valid_name",
    "validate",
    "value_at",
]
