"""Profiles: YAML files that hold only what differs from the defaults of a typed config.

`extends:` names one parent (relative to the file); dotted overrides (`training.epochs=5`)
come last. A name that begins with `configs/` is, where there is no such file, one of the profiles
that are installed with the package: commands of the docs need no checkout. Every unknown key is
refused with its path and the nearest good one. Values stay as they are written until their field
is known (see `written`).
"""

from __future__ import annotations

import difflib
import errno
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from data_shards.errors import InputError
from data_shards.written import as_meant, read_typed, read_yaml

# The project's own: a link to the checkout's, which a wheel holds as a folder.
CONFIGS = Path(__file__).parent / "configs"
# Marks a field that changes no result: `Annotated[int, FREE]`.
FREE = "changes no result"
_UNKNOWN_KEY, _BAD_VALUE = "unknown_key", "bad_value"
_OTHER_WORDS = {
    **dict.fromkeys(("string_type", "path_type"), "one value is wanted here"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list is wanted here, [A, B]"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"), "keys with values are wanted here"
    ),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number is wanted here"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number is wanted here"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false is wanted here"),
    "union_tag_not_found": "it has no `name`, which says of what kind it is",
}
_MOST_LETTERS = 600
_shortened = reprlib.Repr()
_shortened.maxlevel, _shortened.maxlist = 2, 4
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 80


class Config(BaseModel):
    """Base of every config: frozen, and unknown keys are errors.

    `former_names` are what earlier releases called fields, or None for those that are gone: a
    config that was saved then is read as if it were written now.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    former_names: ClassVar[Mapping[str, str | None]] = {}

    @model_validator(mode="before")
    @classmethod
    def _take_known_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        renamed: dict[str, Any] = {}
        for key, value in values.items():
            name = cls.former_names.get(key, key)
            if name in renamed:
                raise _of_a_key(_BAD_VALUE, key, f"another name of {name!r}: keep one of the two")
            if name is not None:
                renamed[name] = value
        for name, value in renamed.items():
            field = cls.model_fields.get(name)
            if field is None:
                near = difflib.get_close_matches(str(name), cls.model_fields, n=1, cutoff=0.5)
                known = f"known keys: {', '.join(sorted(cls.model_fields))}"
                said = f"did you mean {near[0]!r}?" if near else known
                raise _of_a_key(_UNKNOWN_KEY, str(name), said)
            try:
                renamed[name] = as_meant(value, field.annotation)
            except ValueError as error:
                raise _of_a_key(_BAD_VALUE, name, str(error)) from error
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


def _of_a_key(kind: str, key: str, said: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{said}", {"said": said, "key": key})


ConfigT = TypeVar("ConfigT", bound=Config)


def load_profile(kind: type[ConfigT], path: Path, overrides: Sequence[str] = ()) -> ConfigT:
    """The config that `path`, its parents and `key=value` overrides describe.

    Raises InputError (what, where, remedy) for a missing file, bad YAML, a cycle of
    `extends`, an unknown key or a value of the wrong type.
    """
    values = _merge(_read_with_parents(_found(path), ()), parse_overrides(overrides))
    return validate(kind, values, where=str(path))


def keys_of(path: Path) -> frozenset[str]:
    """The keys of a profile and its parents, of the first level. Raises as `load_profile`."""
    return frozenset(_read_with_parents(path, ()))


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


def _found(name: Path, folder: Path = Path()) -> Path:
    """The profile called `name` in `folder`, or where there is none the project's own."""
    own = CONFIGS.joinpath(*name.parts[1:])
    is_own = name.parts[:1] == (CONFIGS.name,) and not (folder / name).exists() and own.exists()
    return own if is_own else folder / name


def _read_with_parents(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such profile: see {CONFIGS}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: not a YAML profile, but a folder") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise InputError(f"{str(path)[:200]}...: a name too long for a file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}: line {line}: not UTF-8 text: save the profile as UTF-8"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not a YAML profile: {error}") from error
    resolved = path.resolve()
    if resolved in seen:
        raise InputError(f"{path}: `extends` leads back to this file: remove one of the two")
    if values is None:
        return {}
    if not isinstance(values, dict):
        found = "a list" if isinstance(values, list) else "text"
        raise InputError(f"{path}: expected `key: value` lines, found {found}")
    try:
        parent = as_meant(values.pop("extends", None), Path | None)
        if parent is None:
            return values
        if not isinstance(parent, Path):
            raise ValueError("one profile is wanted here")
    except ValueError as error:
        raise InputError(f"{path}: extends: {error}") from error
    return _merge(_read_with_parents(_found(parent, path.parent), (*seen, resolved)), values)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """The nested values of dotted `key=value` overrides, the later ones winning.

    Raises InputError for one without `=` or without a key.
    """
    merged: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise InputError(f"{override!r}: an override is written key=value")
        value: Any = read_typed(text)
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
    kind, message = error["type"], _cut(error["msg"].removeprefix("Value error, "))
    if kind in (_UNKNOWN_KEY, _BAD_VALUE):
        path = ".".join([*parts, error["ctx"]["key"]])
        return f"unknown key {path!r}: {message}" if kind == _UNKNOWN_KEY else f"{path}: {message}"
    path = ".".join(parts) or "profile"
    if kind == "missing":
        return f"{path}: required, but not set: add it to the profile or pass {path}=..."
    given = error.get("input")
    if given is None:
        return f"{path}: empty: give it a value"
    if isinstance(given, dict) and kind.endswith("_type") and kind not in _OTHER_WORDS:
        kind = "string_type"
    shown = "" if isinstance(given, (dict, BaseModel)) else f" (got {_shortened.repr(given)})"
    return f"{path}: {_OTHER_WORDS.get(kind, message)}{shown}"


def _cut(message: str) -> str:
    """A message that repeats a value of any length, in what can be read."""
    end = " ..."
    short = message[: _MOST_LETTERS - len(end)] + end
    return message if len(message) <= _MOST_LETTERS else short
