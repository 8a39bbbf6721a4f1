from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from data_shards.errors import InputError
from data_shards.profiles import FREE, Config, dump_profile, first_difference, load_profile


class Ball(Config):
    name: Literal["ball"] = "ball"
    radius_cm: float = 1.0


class Cube(Config):
    name: Literal["cube"] = "cube"
    edge_cm: float = 2.0


class Toy(Config):
    body: Annotated[Ball | Cube, Field(discriminator="name")] = Ball()
    count: int = 1
    title: str = "toy"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_profile_holds_only_what_differs(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "count: 3\n")
    assert load_profile(Toy, path) == Toy(count=3)


def test_a_child_overrides_its_parent_and_the_command_line_overrides_both(tmp_path: Path) -> None:
    write(tmp_path, "parent.yaml", "count: 3\nbody: {name: ball, radius_cm: 5}\n")
    child = write(tmp_path, "child.yaml", "extends: parent.yaml\nbody: {radius_cm: 7}\n")
    assert load_profile(Toy, child) == Toy(count=3, body=Ball(radius_cm=7))
    assert load_profile(Toy, child, ["body.radius_cm=1e-3"]).body == Ball(radius_cm=1e-3)


def test_another_union_member_replaces_the_inherited_one_whole(tmp_path: Path) -> None:
    write(tmp_path, "parent.yaml", "body: {name: ball, radius_cm: 5}\n")
    child = write(tmp_path, "child.yaml", "extends: parent.yaml\nbody: {name: cube}\n")
    assert load_profile(Toy, child).body == Cube()


def test_text_overrides_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "{}")
    assert load_profile(Toy, path, ["title='12'"]).title == "12"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuont: 3\n", "unknown key 'cuont': did you mean 'count'?"),
        ("body: {name: ball, radus_cm: 3}\n", "did you mean 'radius_cm'?"),
        ("zzz: 1\n", "known keys: body, count, title"),
        ("count: many\n", "count: a whole number is wanted here \\(got 'many'\\)"),
        ("body: {name: cone}\n", "'cone'"),
        ("- 1\n", "expected `key: value` lines, found a list"),
        ("a: [\n", "not a YAML profile"),
        ("extends: a.yaml\n", "leads back"),
        ("extends: gone.yaml\n", "no such profile"),
    ],
)
def test_a_bad_profile_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(InputError, match=message) as caught:
        load_profile(Toy, path)
    assert "\n" not in str(caught.value)


def test_an_override_without_equals_sign_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "{}")
    with pytest.raises(InputError, match="key=value"):
        load_profile(Toy, path, ["count"])


def test_a_dumped_config_reads_back_equal(tmp_path: Path) -> None:
    toy = Toy(body=Cube(edge_cm=1e-7), title="no")
    assert load_profile(Toy, write(tmp_path, "a.yaml", dump_profile(toy))) == toy


def test_the_first_difference_of_two_configs_is_named() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 0}
    assert first_difference(old, {"a": {"b": 1, "c": [1, 2]}, "d": 0}) is None
    assert first_difference(old, {"a": {"b": 1, "c": [1, 3]}, "d": 0}) == (
        "a.c ([1, 2] then, [1, 3] now)"
    )


class Renamed(Config):
    former_names: ClassVar[Mapping[str, str | None]] = {"radius": "radius_cm", "colour": None}

    radius_cm: float = 1.0
    workers: Annotated[int, FREE] = 2


class Owner(Config):
    part: Renamed = Renamed()
    title: str = "toy"
    folder: Annotated[Path | None, FREE] = None


def test_what_a_field_was_called_is_still_read_and_what_is_gone_is_left_out(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "a.yaml", "part: {radius: 3, colour: red}\n")
    assert load_profile(Owner, path) == Owner(part=Renamed(radius_cm=3))
    assert "radius_cm: 3.0" in dump_profile(load_profile(Owner, path))


def test_a_former_name_is_not_offered_as_the_nearest_good_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "part: {radiu: 3}\n")
    with pytest.raises(InputError, match=r"unknown key 'part\.radiu': did you mean 'radius_cm'\?"):
        load_profile(Owner, path)


def test_free_fields_decide_nothing_at_any_depth() -> None:
    one = Owner()
    other = Owner(folder=Path("there"), part=Renamed(workers=9))
    assert one != other
    assert one.deciding() == other.deciding() == {"part": {"radius_cm": 1.0}, "title": "toy"}


def test_every_other_field_decides() -> None:
    one, other = Owner(), Owner(part=Renamed(radius_cm=2))
    difference = first_difference(one.deciding(), other.deciding())
    assert difference == "part.radius_cm (1.0 then, 2.0 now)"
