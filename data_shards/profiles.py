"""Profiles: YAML files that hold only what differs from the defaults of a typed config.

`extends:` names one parent (relative to the file); dotted overrides (`training.epochs=5`)
come last. Every unknown key is refused with its path and the nearest good one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from data_shards.errors import InputError

# Marks a field that changes no result: `Annotated[int, FREE]`.
FREE = "changes no result"
_UNKNOWN_KEY = "unknown_key"


class Config(BaseModel):
    """Base of every config: frozen, and unknown keys are errors.

    `former_names` are what earlier releases called fields, or None for those that are gone: a
    config that was saved then is read as if it were written now.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    former_names: ClassVar[Mapping[str, str | None]] = {}

    @model_validator(mode="before")
    @classmethod
    def _take_known_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        renamed = {cls.former_names.get(name, name): value for name, value in values.items()}
        renamed.pop(None, None)
        for key in (str(each) for each in renamed if each not in cls.model_fields):
            near = difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.5)
            known = f"known keys: {', '.join(sorted(cls.model_fields))}"
            said = f"did you mean {near[0]!r}?" if near else known
            raise PydanticCustomError(_UNKNOWN_KEY, "{said}", {"said": said, "key": key})
        return renamed

    def deciding(self) -> dict[str, Any]:
        """The plain values that decide a result: all but the fields marked `FREE`."""
        plain = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if FREE in field.metadata:
                del plain[name]
            elif isinstance(value, Config):
                plain[name] = value.deciding()
        return plain


ConfigT = TypeVar("ConfigT", bound=Config)


def load_profile(kind: type[ConfigT], path: Path, overrides: Sequence[str] = ()) -> ConfigT:
    """The config that `path`, its parents and `key=value` overrides describe.

    Raises InputError (what, where, remedy) for a missing file, bad YAML, a cycle of
    `extends`, an unknown key or a value of the wrong type.
    """
    values = _merge(_read_with_parents(path, ()), parse_overrides(overrides))
    return validate(kind, values, where=str(path))


def validate(kind: type[ConfigT], values: Mapping[str, Any], *, where: str) -> ConfigT:
    """`values` as a config, or InputError naming the first bad field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {_describe(error.errors()[0], values)}") from error


def dump_profile(config: Config) -> str:
    """The resolved config as YAML; `load_profile` reads it back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def first_difference(old: Any, new: Any, path: str = "") -> str | None:
    """The dotted path of the first value in which two plain configs differ, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return None
    return None if old == new else f"{path} ({old!r} then, {new!r} now)"


def _read_with_parents(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in seen:
        raise InputError(f"{path}: `extends` leads back to this file: remove one of the two")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such profile: see the folder configs/") from error
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"{path}: not a YAML profile ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    return _merge(_read_with_parents(path.parent / str(parent), (*seen, resolved)), values)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """The nested values of dotted `key=value` overrides, the later ones winning.

    Raises InputError for one without `=` and for a value that is not YAML.
    """
    merged: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"{override!r}: an override is written key=value")
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"{override!r}: the value is not valid YAML") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        merged = _merge(merged, value)
    return merged


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`change` over `base`; a mapping with another `name` (union tag) replaces it whole."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            renamed = "name" in value and value["name"] != old.get("name", value["name"])
            merged[key] = value if renamed else _merge(old, value)
        else:
            merged[key] = value
    return merged


def _describe(error: ErrorDetails, values: Any) -> str:
    """One line; the path is as a user types it, without pydantic's union tags."""
    parts: list[str] = []
    for part in error["loc"]:
        inside = values if isinstance(values, dict) else {}
        if part in inside or part != inside.get("name"):
            parts.append(str(part))
            values = inside.get(part)
    if error["type"] == _UNKNOWN_KEY:
        path = ".".join([*parts, error["ctx"]["key"]])
        return f"unknown key {path!r}: {error['msg']}"
    path = ".".join(parts) or "profile"
    if error["type"] == "missing":
        return f"{path}: required, but not set: add it to the profile or pass {path}=..."
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    shown = "" if isinstance(given, (dict, BaseModel)) else f" (got {given!r})"
    return f"{path}: {message}{shown}"
