"""A list of tasks is run by one command, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.building.settings import ShardsConfig
from data_shards.command_line import DONE
from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.__main__ import main
from distributed_pretrain.commands import COMMANDS
from distributed_pretrain.downstream.protocols.base import LocalizedConfig
from distributed_pretrain.downstream.settings import DownstreamConfig
from distributed_pretrain.experiments.grid.pool import ModuleRun
from distributed_pretrain.experiments.suites import run
from distributed_pretrain.experiments.suites.run import run_suite
from distributed_pretrain.experiments.suites.settings import (
    SuiteConfig,
    is_done,
    refuse_what_cannot_start,
)
from tests.paths import CONFIGS
from tests.tiny.sizes import IMAGE_SIZE_PX

SUITES = ("paper", "phantom")


def suite_of(name: str, *overrides: str) -> SuiteConfig:
    return load_profile(SuiteConfig, CONFIGS / "downstream" / f"{name}.yaml", overrides)


def test_the_lungs_are_two_tasks_of_the_same_masks() -> None:
    suite = suite_of("lungs", "encoder=random")
    linear, unet = (suite.read(task).config for task in suite.tasks)
    assert (linear.protocol.name, unet.protocol.name) == ("linear_segmentation", "unet")
    assert linear.data == unet.data
    assert linear.classes == ("left_lung", "right_lung")
    assert linear.protocol.is_frozen
    assert unet.protocol.is_frozen


@pytest.mark.parametrize("name", SUITES)
def test_every_task_of_a_suite_is_a_task(name: str) -> None:
    suite = suite_of(name, "encoder=imagenet")
    configs = {task.name: suite.read(task).config for task in suite.tasks}
    assert len(configs) == 24
    assert all(each.procedure is not None for each in configs.values())
    assert {each.data.fraction for each in configs.values()} == {0.01, 0.1, 1.0}
    assert suite.row == "imagenet", "as in the published tables"
    assert configs["nih_linear"].run_folder == suite.run_folder / suite.row / "nih_linear"


def test_the_papers_grids_are_in_their_order() -> None:
    suite = suite_of("paper", "encoder=random")
    grids = {}
    for task in suite.tasks:
        procedure = suite.read(task).config.procedure
        assert procedure is not None
        grids[task.name] = procedure.learning_rates
    assert grids["rsna_linear_1"] == (3e-2, 1e-2, 3e-3, 1e-4)
    assert grids["rsna_linear_10"] == grids["rsna_linear_100"] == (3e-2, 1e-2, 3e-3, 1e-3)
    assert grids["rsna_yolov3_finetune_1"] == grids["rsna_yolov3_finetune_100"] == (3e-4, 1e-4)
    assert grids["rsna_yolov3_finetune_10"] == (3e-4, 1e-3)
    assert grids["rsna_yolov3_frozen_10"] == (1e-3,)
    assert grids["object_linear"] == (3e-1, 1e-1, 3e-2, 1e-2)


def test_the_seeds_to_run_now_are_those_of_the_procedure_as_it_is_changed() -> None:
    seven = "protocol_overrides.linear_segmentation=['procedure.seeds=[7]']"
    suite = suite_of("phantom", "encoder=random", seven, "only_seeds=[7]")
    linear = next(task for task in suite.tasks if task.name == "nih_linear")
    assert suite.read(linear).config.wanted_seeds == (7,)


def test_what_the_authors_did_is_one_profile() -> None:
    ours, theirs = (suite_of(name, "encoder=random") for name in ("paper", "paper_authors"))
    assert len(theirs.tasks) == 18
    by_name = {task.name: ours.read(task).config for task in ours.tasks}
    for task in theirs.tasks:
        own, authors = by_name[task.name], theirs.read(task).config
        assert authors.procedure == own.procedure
        of_objects = "object_cxr" in str(own.data.shards)
        shards = Path(f"{own.data.shards}_authors") if of_objects else own.data.shards
        assert authors.data == own.data.model_copy(update={"shards": shards})
        switches = {k: v for k, v in authors.protocol.model_dump().items() if v == "authors"}
        assert len(switches) == (4 if authors.protocol.name == "yolov3" else 0)
        acts = "finetune" not in task.name
        assert authors.schedule.name == ("plateau" if acts else "constant")


def test_the_verb_takes_a_task_and_a_list_of_tasks() -> None:
    command = next(each for each in COMMANDS if each.name == "downstream")
    task = CONFIGS / "downstream" / "tasks" / "nih_linear.yaml"
    assert command.kind_of(task) is DownstreamConfig
    for name in SUITES:
        profile = CONFIGS / "downstream" / f"{name}.yaml"
        assert command.kind_of(profile) is SuiteConfig
        settings, folder = command.read(profile, ["encoder=random", "run_folder=runs/x"])
        assert isinstance(settings, SuiteConfig)
        assert folder == Path("runs/x")


def test_a_suite_refuses_what_cannot_start() -> None:
    with pytest.raises(InputError, match=r"only: 'other' is none of rsna_yolov3_finetune_1"):
        suite_of("paper", "encoder=random", "only=[other]")
    with pytest.raises(InputError, match=r"encoder: required, but not set"):
        suite_of("paper")
    suite = suite_of("paper", "encoder=/nowhere/run")
    for ranks, said in ((1, "/nowhere/run is not a run folder"), (2, "not of 2 ranks")):
        with pytest.raises(InputError, match=said):
            refuse_what_cannot_start(suite, suite.run_folder, ranks)
    suite = suite_of(
        "phantom",
        "encoder=random",
        "shards.x={profile: configs/shards/phantom_rsna.yaml, output: runs/phantom/rsna_shards}",
    )
    with pytest.raises(InputError, match=r"shards: 'x' is the data.shards of no task: correct"):
        refuse_what_cannot_start(suite, suite.run_folder, 1)
    for changes, said in (
        ("claims=[{says: a, method: phantom_lovt, than: lovt}]", "'lovt' is the name of no row"),
        ("tables=[]", "are held against the figures of tables"),
    ):
        with pytest.raises(InputError, match=f"claims: {said}"):
            suite_of("phantom", "encoder=random", changes)
    suite = suite_of("phantom", "encoder=random", "protocol_overrides.x=[data.fraction=1]")
    said = r"protocol_overrides: 'x' is the protocol of no task: use linear, linear_segmentation"
    with pytest.raises(InputError, match=said):
        refuse_what_cannot_start(suite, suite.run_folder, 1)


def test_the_phantom_in_a_sets_layout_stands_for_the_set() -> None:
    suite = suite_of("phantom", "encoder=random")
    papers = {task.name: task for task in suite_of("paper", "encoder=random").tasks}
    outputs = set()
    for task in suite.tasks:
        read = suite.read(task)
        built, own = read.built, read.config
        assert built is not None, task.name
        assert (str(own.data.shards), task) == (str(built.output), papers[task.name])
        shards = load_profile(ShardsConfig, built.profile)
        assert shards.phantom is not None
        assert shards.source.name == shards.phantom.layout
        assert shards.output == built.output
        outputs.add(built.output)
        assert own.training.max_steps == {"unet": 100, "yolov3": 300}.get(own.protocol.name, 400)
        if isinstance(own.protocol, LocalizedConfig) and own.protocol.warms_up:
            assert own.protocol.warmup_steps <= own.training.max_steps / 3, "the encoder learns too"
    assert len(outputs) == 6


class InThisProcess(ModuleRun):
    """The same words, without the seconds that a start of Python takes."""

    def start(self) -> None:
        package, *words = self._words
        assert package == "distributed_pretrain"
        self._status = main(words)

    def status(self) -> int | None:
        return self._status

    def end(self) -> None:
        pass


def test_tasks_that_are_there_are_not_run_again(
    drawn_shards: Path,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "ModuleRun", InThisProcess)
    suite = suite_of(
        "phantom",
        f"encoder={tiny_run}",
        "method=lovt_100",
        f"run_folder={tmp_path}",
        "only=[covid_linear]",
    )
    small = (
        f"data.shards={drawn_shards}",
        f"data.image_size_px={IMAGE_SIZE_PX}",
        "data.global_batch=8",
        "training.max_steps=1",
        "procedure.learning_rates=[0.1]",
        "procedure.seeds=[0, 1]",
    )
    (task,) = suite.wanted
    task = task.model_copy(update={"overrides": ("data.masks=[Consolidation]",)})
    suite = suite.model_copy(
        update={
            "tasks": tuple(task if each.name == task.name else each for each in suite.tasks),
            "overrides": (*suite.overrides, *small),
            "shards": {},
        }
    )
    assert run_suite(suite) == DONE
    printed, said = capsys.readouterr()
    assert "1 tasks to run on lovt_100 (0 are there)" in said
    assert " (n=2)" in printed
    assert (tmp_path / "tables.md").read_text() in printed
    assert len([path for end in ("tex", "csv", "html") for path in tmp_path.glob(f"*.{end}")]) == 9
    assert is_done(suite.read(task).config)
    assert run_suite(suite) == DONE
    assert "0 tasks to run on lovt_100 (1 are there)" in capsys.readouterr().err
