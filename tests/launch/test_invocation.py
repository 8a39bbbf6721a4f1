from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from launch.invocation import read_invocation
from tests.paths import CONFIGS

PHANTOM = str(CONFIGS / "shards" / "phantom.yaml")


def test_a_pretraining_writes_to_its_run_folder(tiny_profile: Path, tmp_path: Path) -> None:
    command = read_invocation(["pretrain", str(tiny_profile), f"run_folder={tmp_path}", "seed=3"])
    assert command.folder == tmp_path
    assert isinstance(command.settings, PretrainConfig)
    assert command.settings.seed == 3
    assert command.words[:2] == ("distributed_pretrain", "pretrain")
    assert command.words[3:] == (f"run_folder={tmp_path}", "seed=3")


def test_the_name_of_the_package_may_be_said(tiny_profile: Path) -> None:
    words = ["pretrain", str(tiny_profile), "run_folder=r"]
    assert read_invocation(["distributed_pretrain", *words]) == read_invocation(words)


def test_folders_are_absolute(
    tiny_profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_invocation(["pretrain", str(tiny_profile), "run_folder=r"]).folder == tmp_path / "r"


def test_an_evaluation_writes_to_the_run_it_is_of(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    command = read_invocation(["evaluate", str(tmp_path), "split=validate"])
    assert command.folder == tmp_path
    assert isinstance(command.settings, EvaluateConfig)
    assert command.settings.split == "validate"
    assert command.resolved_profile is None


@pytest.mark.parametrize("verb", ["build", "verify"])
def test_shards_are_built_into_their_output(verb: str, tmp_path: Path) -> None:
    command = read_invocation(["data_shards", verb, PHANTOM, f"output={tmp_path}"])
    assert command.folder == tmp_path
    assert isinstance(command.settings, ShardsConfig)


def test_a_start_reads_the_resolved_profile_instead_of_overrides(
    tiny_profile: Path, tmp_path: Path
) -> None:
    command = read_invocation(["pretrain", str(tiny_profile), "run_folder=r", "seed=3"])
    kept = tmp_path / "profile.yaml"
    assert command.resolved_profile is not None
    kept.write_text(command.resolved_profile)
    assert command.words_with(kept) == ("distributed_pretrain", "pretrain", str(kept))
    assert load_profile(PretrainConfig, kept) == command.settings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command: write pretrain PROFILE.yaml"),
        (["pretrain"], r"pretrain: of what\? Write pretrain PROFILE.yaml"),
        (["train", "a.yaml"], "distributed_pretrain train: not a command for a cluster"),
        (["build", "a.yaml"], "distributed_pretrain build: not a command for a cluster"),
        (["data_shards", "preview", "a.yaml"], "data_shards preview: not a command"),
        (["pretrain", "gone.yaml"], "gone.yaml: no such profile"),
        (["data_shards", "build", PHANTOM, "outputt=a"], "did you mean 'output'"),
    ],
)
def test_bad_words_are_one_clear_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_invocation(words)
    assert "\n" not in str(caught.value)


def test_a_batch_that_ranks_cannot_share_is_refused(tiny_profile: Path) -> None:
    command = read_invocation(["pretrain", str(tiny_profile), "run_folder=r"])
    command.check(ranks=2)
    with pytest.raises(InputError, match=r"global_batch=8 .* 3 ranks"):
        command.check(ranks=3)


def test_shards_that_are_not_there_are_refused(tiny_profile: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(tiny_profile.read_text())
    values["data"]["shards"] = str(tmp_path / "gone")
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"gone/.*: no manifest"):
        read_invocation(["pretrain", str(path), "run_folder=r"]).check(ranks=1)


def test_what_runs_in_one_process_wants_no_more_ranks(tmp_path: Path) -> None:
    command = read_invocation(["data_shards", "build", PHANTOM, f"output={tmp_path}"])
    with pytest.raises(InputError, match=r"profile asks for 16: pass nodes=1"):
        command.check(ranks=16)


def test_an_evaluation_of_no_run_is_refused() -> None:
    with pytest.raises(InputError, match="gone is not a run folder"):
        read_invocation(["evaluate", "gone"]).check(ranks=1)


def test_an_evaluation_of_no_checkpoint_or_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    evaluate = ["evaluate", str(tmp_path)]
    with pytest.raises(InputError, match=r"checkpoints/best: no such checkpoint: .*untrained"):
        read_invocation(evaluate).check(ranks=1)
    evaluate.append("checkpoint=untrained")
    read_invocation(evaluate).check(ranks=1)
    with pytest.raises(InputError, match=r"gone/.*: no manifest"):
        read_invocation([*evaluate, f"shards={tmp_path / 'gone'}"]).check(ranks=1)


def build_of(folder: Path, **source: str) -> list[str]:
    """The words of a build of tables that lie in `folder`."""
    (folder / "table.csv").write_text("image,patient_id,report\n")
    values = {
        "extends": str(CONFIGS / "shards" / "csv_pairs.yaml"),
        "source": {"table": str(folder / "table.csv"), "image_root": str(folder), **source},
        "output": str(folder / "shards"),
    }
    path = folder / "shards.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["data_shards", "build", str(path)]


@pytest.mark.parametrize("field", ["table", "image_root"])
def test_a_source_that_is_not_there_is_refused(field: str, tmp_path: Path) -> None:
    read_invocation(build_of(tmp_path)).check(ranks=1)
    gone = {field: str(tmp_path / "gone")}
    with pytest.raises(InputError, match=rf"source.{field}=.*gone: no such file or folder"):
        read_invocation(build_of(tmp_path, **gone)).check(ranks=1)


def test_what_a_phantom_draws_need_not_be_there(tmp_path: Path) -> None:
    words = ["data_shards", "build", PHANTOM, f"phantom.archive={tmp_path / 'not yet'}"]
    read_invocation(words).check(ranks=1)


def test_shards_to_verify_must_be_there(tmp_path: Path) -> None:
    words = ["data_shards", "verify", PHANTOM, f"output={tmp_path}"]
    with pytest.raises(InputError, match="no manifest"):
        read_invocation(words).check(ranks=1)


def comparison(folder: Path, **changes: str) -> list[str]:
    """The words of a comparison of one method."""
    values = {
        "title": "One",
        "output": str(folder / "runs"),
        "page": str(folder / "page.md"),
        "shards_profile": PHANTOM,
        "shards": str(folder / "shards"),
        "methods": [
            {
                "name": "lovt",
                "title": "LoVT",
                "supervision": "reports",
                "profile": changes.pop("profile", str(CONFIGS / "pretrain" / "phantom_lovt.yaml")),
            }
        ],
        **changes,
    }
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["compare", str(path)]


def test_a_comparison_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    read_invocation(comparison(tmp_path)).check(ranks=1)
    for field in ("profile", "shards_profile"):
        with pytest.raises(InputError, match=r"gone.yaml: no such profile"):
            read_invocation(comparison(tmp_path, **{field: "gone.yaml"})).check(ranks=1)
    *_, profile = build_of(tmp_path, table=str(tmp_path / "gone.csv"))
    with pytest.raises(InputError, match=r"source.table=.*gone.csv: no such file"):
        read_invocation(comparison(tmp_path, shards_profile=profile)).check(ranks=1)
