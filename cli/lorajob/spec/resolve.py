"""From what the user gave to one RunSpec: recipe < platform's defaults < spec files < flags < --set, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorajob.errors import UsageError
from lorajob.spec import spec_file
from lorajob.spec.spec_file import SpecFile
from lorajob_runtime.contract import catalog, schema, spec
from lorajob_runtime.contract.errors import ConfigError
from lorajob_runtime.contract.spec import RunSpec

DEFAULT_FILE = Path("lorajob.yaml")

_SECTIONS = frozenset(
    field.path.rsplit(".", depth)[0] for field in spec.every_field() for depth in range(1, len(field.attributes))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """The spec of a run, what of it the user gave, and the files that were read."""

    spec: RunSpec
    given: dict[str, Any]
    files: tuple[Path, ...]

    def gives(self, path: str) -> bool:
        """Whether a field comes from the user, not from the recipe, the platform or the defaults."""
        return _has(self.given, path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """Fields from one place, and how to name that place in an error."""

    values: dict[str, Any]
    file: SpecFile | None = None
    setting: str | None = None
    flag: str | None = None
    place: str | None = None
    """What a layer that the user did not give is called."""

    def complain(self, error: ConfigError) -> ConfigError:
        """The error for a field of this layer: it names the file and line, the --set, the flag, or the platform."""
        message, path = error.message, error.path
        if self.place is not None:
            return ConfigError(f"{self.place}: {message}", hint="who runs the platform must correct it", path=path)
        if self.file is not None:
            hint = "correct the file, or give the field as a flag"
            return UsageError(f"{self.file.place(path)}: {message}", hint=hint, path=path)
        if self.setting is not None:
            return UsageError(f"--set {self.setting}: {message}", path=path)
        return UsageError(message if self.flag is None else error.naming_it(self.flag), path=path)


def resolve(
    files: Sequence[Path] = (),
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    *,
    defaults: Mapping[str, Any] | None = None,
    defaults_place: str = "the platform's defaults",
) -> Resolved:
    """The spec of a run.

    `files` in order, the later ones winning; without any, ./lorajob.yaml if there is one. `flags` is path -> value,
    `settings` are the texts of --set, `defaults` are the platform's. Raises UsageError, which names the place that the
    wrong value came from; ConfigError when that is the platform.
    """
    files = tuple(files) or _default_files()
    layers = [_file_layer(path) for path in files]
    layers += [
        Layer(values=spec.nest(path, value), flag=spec.field_at(path).flag) for path, value in (flags or {}).items()
    ]
    layers += [_setting_layer(text) for text in settings]
    platform = Layer(values=_without_empty_sections(defaults or {}), place=defaults_place)
    for layer in (platform, *layers):
        _check(layer)
    given = spec.merge(*(layer.values for layer in layers))
    wanted = spec.merge(platform.values, given)
    name = wanted.get("model", {}).get("name") or RunSpec().model.name
    entry = catalog.find(name)
    try:
        resolved = spec.parse(spec.merge(entry.recipe if entry else {}, wanted))
    except ConfigError as error:
        raise _complaint((platform, *layers), error) from error
    return Resolved(spec=resolved, given=given, files=tuple(files))


def _default_files() -> tuple[Path, ...]:
    return (DEFAULT_FILE,) if DEFAULT_FILE.exists() else ()


def _file_layer(path: Path) -> Layer:
    file = spec_file.load(path)
    return Layer(values=_without_empty_sections(file.values), file=file)


def _setting_layer(text: str) -> Layer:
    return Layer(values=parse_setting(text), setting=text)


def parse_setting(text: str) -> dict[str, Any]:
    """What a --set says, as a part of a spec: FIELD=VALUE with the field's path. Raises UsageError."""
    path, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: it must be FIELD=VALUE, like train.maxSteps=8")
    try:
        return spec.nest(path.strip(), spec_file.scalar(value))
    except ConfigError as error:
        raise UsageError(f"--set {text}: {error.message}") from error


def _check(layer: Layer) -> None:
    """Unknown fields and wrong types of one layer; what is out of range is seen when all are together."""
    try:
        spec.check_version(layer.values)
        schema.decode(RunSpec, layer.values)
    except ConfigError as error:
        raise layer.complain(error) from error


def _complaint(layers: Sequence[Layer], error: ConfigError) -> ConfigError:
    """The error in the words of the last layer that has the field; the recipe is never at fault."""
    for layer in reversed(layers):
        if error.path and _has(layer.values, error.path):
            return layer.complain(error)
    return UsageError(error.message, path=error.path)


def _has(values: Mapping[str, Any], path: str) -> bool:
    value: Any = values
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True


def _without_empty_sections(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`train:` with nothing below it says nothing; as a null it would wipe out the recipe's `train`."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if path in _SECTIONS:
            if isinstance(value, Mapping):
                kept[key] = _without_empty_sections(value, path + ".")
            elif value is not None:
                kept[key] = value
        else:
            kept[key] = value
    return kept
