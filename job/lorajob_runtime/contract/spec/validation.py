"""Which specs are right: every value within its field's range, and no combination that is impossible."""

from __future__ import annotations

import json

from lorajob_runtime.contract import hubs, schema
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec.fields import ModelSpec, RunSpec
from lorajob_runtime.contract.spec.listing import every_field
from lorajob_runtime.contract.spec.rules import COLUMN_ROLES


def validate(spec: RunSpec) -> None:
    """Raises ConfigError for a value out of range or an impossible combination."""
    for field in every_field():
        value = field.value_in(spec)
        right = None if value is None else field.option.right_instead_of(value)
        if right is not None:
            raise ConfigError(f"{field.path} is {schema.plain(value)!r}: it must be {right}", path=field.path)
    for role in spec.data.columns:
        if role not in COLUMN_ROLES:
            raise ConfigError(
                f"data.columns has {role!r}: the roles are {', '.join(COLUMN_ROLES)}", path="data.columns"
            )
    if spec.model.trust_remote_code and not spec.model.is_local:
        check_pinned(spec.model)
    if spec.data.eval_rows is not None and spec.data.rows is None and spec.data.eval_rows == ":":
        raise ConfigError("data.evalRows is ':': it must leave rows to train on", path="data.evalRows")
    _check_encoding(spec)


def check_pinned(model: ModelSpec) -> None:
    """Raises ConfigError where a repository's code is trusted that may be another one tomorrow."""
    if not model.trust_remote_code:
        return
    if model.revision is None:
        raise ConfigError(
            "model.trustRemoteCode is true: it needs model.revision, the commit whose code you have read",
            path="model.trustRemoteCode",
        )
    if model.revision in hubs.MOVING_REVISIONS:
        without_commits = " and ".join(hub.title for hub in hubs.MODEL_HUBS if not hub.tells_commit)
        raise ConfigError(
            f"model.trustRemoteCode is true and model.revision {model.revision!r}, which moves: it must be the commit "
            f"whose code you have read, or on {without_commits} the tag",
            path="model.trustRemoteCode",
        )


def _check_encoding(spec: RunSpec) -> None:
    try:
        json.dumps(schema.encode(spec, defaults=False), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        # a name of a file and an argument of a command line may be any bytes
        wrong = error.object[max(0, error.start - 40) : error.end].rpartition('"')[2]
        raise ConfigError(f"the spec holds {wrong!r}: it must be text in UTF-8") from error
