"""Addresses of shards in stores elsewhere: what is one, as it was typed."""

from __future__ import annotations

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

# Never pipe: and what else runs a command or reads this machine.
_PROTOCOLS = ("s3", "gs", "https", "http")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", re.DOTALL)


class Address(str):
    """A folder in a store, `s3://BUCKET/FOLDER`, `gs://...`, `https://...` or `http://...`.

    Stays as it was typed. Raises ValueError for another protocol, for credentials (in front of a
    host, or a signature behind ?), which would be saved with every run, and for what names no
    folder.
    """

    def __new__(cls, text: str) -> Address:
        """The address that `text` is."""
        found = _ADDRESS.fullmatch(text)
        if found is None or found[1].lower() not in _PROTOCOLS:
            known = ", ".join(f"{each}://" for each in _PROTOCOLS)
            raise ValueError(f"{_public(text)}: no address that shards are read from: use {known}")
        if "@" in found[2] or "?" in found[3] or "#" in found[3]:
            raise ValueError(
                f"{_public(text)}: an address with a name, password, signature or mark in it: "
                "leave that out: credentials are read from where the store's own tools look"
            )
        parts = found[3].split("/")
        if not found[2] or "::" in text or ".." in parts or re.search(r"[\s\x00-\x1f\\*]", text):
            raise ValueError(f"{_public(text)!r}: no folder of a store: write s3://BUCKET/FOLDER")
        return super().__new__(cls, text)

    @property
    def protocol(self) -> str:
        """`s3`, `gs`, `https` or `http`."""
        return self.partition("://")[0].lower()

    def file(self, name: str) -> str:
        """The address of a file in the folder."""
        return f"{self.rstrip('/')}/{name}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        from_text = core_schema.chain_schema(
            [
                core_schema.str_schema(strict=True),
                core_schema.no_info_plain_validator_function(cls),
            ]
        )
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=from_text,
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )


def _public(text: str) -> str:
    """Without what may be a secret."""
    scheme, _, rest = text.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{re.split('[?#]', path)[0]}"[:200]
