"""Values as profiles and overrides write them, read as the field asks that they are for.

YAML guesses types by spelling: 2026-11-28 is a date, 010 is eight, 12:30 is 750, no is false. Here
every scalar stays the text that it is until its field is known: a text or a path is what was typed,
a number is what the field makes of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from data_shards.remote.address import Address

_NOTHING = ("null", "Null", "NULL", "")
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
# Beyond, sums and seeds of machines overflow.
_MOST = 2**62
_WHOLE = re.compile(r"\s*[+-]?[0-9]+(?:_[0-9]+)*\s*")
_QUOTED = re.compile(r"""\s*(?:'(?:[^']|'')*'|"(?:[^"\\]|\\.)*")\s*""", re.DOTALL)
_ELSEWHERE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+://)|[A-Za-z]:[\\/]|\\\\")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", re.ASCII)


class Written(str):
    """A scalar as it stands. In quotes it is that text; without, its field decides what it is."""

    def __new__(cls, text: str, *, is_quoted: bool = False) -> Written:
        """The text without its quotes."""
        written = super().__new__(cls, text)
        written.is_quoted = is_quoted
        return written

    is_quoted: bool


class Typed(Written):
    """The value of an override: text for a field of text, otherwise YAML, without comments."""


class TypedMapping(dict[str, Any]):
    """The value of an override that reads as a mapping; `text` is how it was typed."""

    text: Typed


class _Loader(yaml.SafeLoader):
    """Mappings, lists and scalars as they are written; no tags, no <<, and no key twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is there twice: keep one", problem_mark=key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node


def _written(_: yaml.SafeLoader, node: yaml.ScalarNode) -> Written:
    # The line end of a block (| or >) is the file's.
    text = node.value.rstrip("\n") if node.style in ("|", ">") else node.value
    return Written(text, is_quoted=node.style is not None)


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    "tag:yaml.org,2002:str": _written,
    **{
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", None)
    },
}


def read_yaml(text: str) -> Any:
    """Mappings, lists and `Written` scalars; None of an empty text.

    Raises ValueError, in one line with the line's number, for what is not YAML or holds a key
    twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(" ".join(f"{line}{error.problem or error}".split())) from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("brackets within brackets, too deep to be meant") from error


def read_typed(text: str) -> Typed | TypedMapping:
    """The value of an override: text, of which its field decides whether it is a list or number.

    Braces around the whole make a mapping, unless its field is one of text.
    """
    typed = Typed(text)
    if text.lstrip().startswith("{") and isinstance(value := _parsed(typed), dict):
        mapping = TypedMapping(value)
        mapping.text = typed
        return mapping
    return typed


class _Dumper(yaml.SafeDumper):
    """What `_Loader` reads back: quotes where they stood, and where YAML's marks need them."""


_Dumper.yaml_implicit_resolvers = {}
_Dumper.add_multi_representer(
    Written,
    lambda dumper, written: dumper.represent_scalar(
        "tag:yaml.org,2002:str", str(written), style="'" if written.is_quoted else None
    ),
)


def as_override(value: Any) -> str:
    """The text of an override that says what `value` says, as `read_yaml` gave it."""
    if isinstance(value, Written) and not (value.is_quoted and _says_more(value)):
        return str(value)
    written = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10_000)
    return written.removesuffix("\n").removesuffix("\n...")


def _says_more(text: str) -> bool:
    """Whether an override of this text would be read as another."""
    return text in (*_NOTHING, "~") or _QUOTED.fullmatch(text) is not None


def as_meant(value: Any, wanted: Any) -> Any:
    """`value` for a field whose annotation is `wanted`; what nobody wrote stays as it is.

    Text and paths are taken literally, but for quotes around the whole and, in paths, a ~ in front
    and variables. Where lists are wanted a single value is a list of one. Unquoted null, and
    nothing at all, are None. Numbers stay text, which pydantic reads. Raises ValueError for a path
    that cannot be meant.
    """
    kinds = tuple(_kinds(wanted))
    if isinstance(value, TypedMapping) and not any(map(_takes_keys, kinds)):
        value = value.text
    if isinstance(value, Typed):
        value = _typed_as_meant(value, kinds)
    if isinstance(value, Written):
        return _scalar_as_meant(value, kinds)
    for kind in kinds:
        inside = get_args(kind)
        if isinstance(value, list) and get_origin(kind) is tuple:
            each = [inside[0]] * len(value) if Ellipsis in inside else [*inside]
            each += [Any] * (len(value) - len(each))
            return [as_meant(part, of) for part, of in zip(value, each, strict=False)]
        if isinstance(value, dict) and get_origin(kind) is dict:
            return {str(key): as_meant(part, inside[1]) for key, part in value.items()}
    return value


def _typed_as_meant(value: Typed, kinds: tuple[Any, ...]) -> Any:
    """The list or text that an override is, without the quotes around the whole."""
    if _QUOTED.fullmatch(value):
        return _parsed(value)
    if str in kinds or Path in kinds:
        return Written(value)
    listed = _parsed(value) if value.lstrip().startswith("[") else None
    if isinstance(listed, list):
        return listed
    # The one value of a list may be text, blanks and all.
    return value if any(map(_is_list, kinds)) else Written(value.strip())


def _scalar_as_meant(value: Written, kinds: tuple[Any, ...]) -> Any:
    text = str(value)
    if str in kinds and not text.isascii() and any("\ud800" <= each <= "\udfff" for each in text):
        raise ValueError("holds bytes that are not UTF-8: write it as UTF-8")
    if not value.is_quoted:
        if text in _NOTHING or (text == "~" and NoneType in kinds):
            return None
        if bool in kinds and text in _BOOLEANS:
            return _BOOLEANS[text]
    if int in kinds and str not in kinds and _overflows(text):
        raise ValueError(f"a whole number below {_MOST:,} is wanted here")
    for kind in kinds:
        if get_origin(kind) is Literal:
            return next((each for each in get_args(kind) if str(each) == text), text)
        if _is_list(kind):
            return [as_meant(value, get_args(kind)[0])]
    if Address in kinds and what_elsewhere(text) == "a URL":
        return Address(text)
    return path_as_meant(text) if Path in kinds else text


def _overflows(text: str) -> bool:
    # Python reads no more than some thousand digits.
    whole = _WHOLE.fullmatch(text) is not None
    return whole and (len(text) > 99 or abs(int(text)) >= _MOST)


def what_elsewhere(path: str) -> str:
    """What `path` is that names nothing on this machine: a URL, a drive of Windows, or nothing."""
    found = _ELSEWHERE.match(path)
    if found is None:
        return ""
    return "a URL" if found[1] else "a drive of Windows"


def path_as_meant(text: str, variables: Mapping[str, str] = os.environ) -> Path:
    """A path with ~ and `variables` filled in ($NAME and ${NAME}).

    Raises ValueError for an empty one, a NUL character, a URL or drive, an unknown user, and a
    variable that is not set: ${NAME}, or $NAME as a whole folder. Other dollars are part of a name.
    """
    if not text.strip():
        raise ValueError("empty: write a path, . for the folder that you are in")
    if "\0" in text:
        raise ValueError(f"a path with a NUL character: {text!r}")
    if what := what_elsewhere(text):
        raise ValueError(f"{text} is {what}: a path of this machine is wanted")

    def fill_in(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        around = (text[: match.start()][-1:] or "/") + (text[match.end() :][:1] or "/")
        if name in variables or not (match[1] or around == "//"):
            return variables.get(name, match[0])
        raise ValueError(f"{match[0]} is not set in the environment: set it, or write the path")

    filled = _VARIABLE.sub(fill_in, text)
    if "${" in filled:
        raise ValueError(f"{text!r}: variables are written ${{NAME}}")
    try:
        return Path(filled).expanduser()
    except RuntimeError as error:
        first = filled.partition("/")[0]
        raise ValueError(f"{first} is nobody's home here: write the path from / on") from error


def _parsed(typed: Typed) -> Any:
    """What the YAML of an override says, or the text itself where it is not YAML."""
    try:
        return read_yaml(typed)
    except ValueError:
        return Written(typed)


def _kinds(wanted: Any) -> Iterator[Any]:
    """The types of a union, without what is annotated."""
    origin = get_origin(wanted)
    if origin is Annotated:
        yield from _kinds(get_args(wanted)[0])
    elif origin in (Union, UnionType):
        for each in get_args(wanted):
            yield from _kinds(each)
    else:
        yield wanted


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple and Ellipsis in get_args(kind)


def _takes_keys(kind: Any) -> bool:
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel))
