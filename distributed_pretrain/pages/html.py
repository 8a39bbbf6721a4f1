"""HTML pages of one file each: style and pictures inside, nothing fetched."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, /, **values: object) -> str:
    """A template of this folder with its values, whose texts are escaped."""
    environment = Environment(
        loader=PackageLoader("distributed_pretrain", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = _typeset
    environment.filters["unbroken"] = _unbroken
    return environment.get_template(template).render(**values)


def _typeset(number: str) -> str:
    return _unbroken(number.replace("-", "\N{MINUS SIGN}"))


def _unbroken(text: str) -> str:
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
