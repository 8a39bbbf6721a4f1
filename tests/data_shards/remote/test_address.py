"""What is an address of shards, and what is none."""

from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.profiles import Config, dump_profile, load_profile, parse_overrides, validate
from data_shards.remote.address import Address
from data_shards.remote.shards import Shards


class Profile(Config):
    shards: Shards


@pytest.mark.parametrize(
    "text", ["s3://bucket/a/b/", "gs://b", "https://host:8/x//y", "http://h/s"]
)
def test_an_address_stays_as_typed_and_is_read_back(text: str, tmp_path: Path) -> None:
    config = validate(Profile, parse_overrides([f"shards={text}"]), where="test")
    assert isinstance(config.shards, Address)
    assert config.shards == text
    (tmp_path / "saved.yaml").write_text(dump_profile(config))
    assert load_profile(Profile, tmp_path / "saved.yaml") == config
    assert Profile.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("text", ["/a/b", "a/b", "s3:/bucket", "pipe:cat x"])
def test_a_path_stays_a_path(text: str) -> None:
    assert validate(Profile, {"shards": text}, where="test").shards == Path(text)


@pytest.mark.parametrize(
    "text",
    [
        "pipe://cat",
        "ftp://host/x",
        "file:///etc",
        "https://me:hunter2@host/x",
        "https://host/x?sig=hunter2",
        "https://host/x#hunter2",
        "s3://",
        "s3://b/../c",
        "s3://b/x::http://h",
        "s3://b/a b",
    ],
)
def test_other_addresses_are_refused_without_their_secrets(text: str) -> None:
    with pytest.raises(InputError) as raised:
        validate(Profile, parse_overrides([f"shards={text}"]), where="test")
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)
