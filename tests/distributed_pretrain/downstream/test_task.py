"""A task's procedure: which learning rate is taken, and that nothing is done twice."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import threading
from pathlib import Path

import pytest
from PIL import Image

from data_shards.errors import InputError
from data_shards.processes import ending_signals_go_to
from data_shards.profiles import load_profile, validate
from distributed_pretrain.downstream import task
from distributed_pretrain.downstream.features import FeatureStore
from distributed_pretrain.downstream.results import TaskResult, read_result
from distributed_pretrain.downstream.run import judge_head, run_downstream, train_head
from distributed_pretrain.downstream.settings import (
    JUDGED,
    TUNED,
    DownstreamConfig,
    figures_of_task,
)
from distributed_pretrain.downstream.task import best_rate, run_task
from distributed_pretrain.experiments.suites.settings import is_done
from distributed_pretrain.measures.metric import Metric, keep_figures
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.task_folder import TaskFolder
from distributed_pretrain.training import gallery
from tests.paths import CONFIGS
from tests.tiny.sizes import IMAGE_SIZE_PX

HIGH, LOW = Metric("dice", "Dice"), Metric("total", "total", better="low")


@pytest.mark.parametrize(
    ("figures", "metric", "rate"),
    [
        ({3e-4: 0.2, 1e-3: 0.5, 1e-4: 0.4}, HIGH, 1e-3),
        ({3e-4: 0.2, 1e-3: 0.5, 1e-4: 0.4}, LOW, 3e-4),
        ({1e-3: 0.5, 3e-3: 0.5, 1e-2: 0.5}, HIGH, 1e-3),
    ],
)
def test_the_first_rate_that_no_later_one_beats_is_taken(
    figures: dict[float, float], metric: Metric, rate: float
) -> None:
    assert best_rate(figures, metric) == rate


@pytest.fixture
def config(drawn_shards: Path, tiny_run: Path, tmp_path: Path) -> DownstreamConfig:
    return load_profile(
        DownstreamConfig,
        CONFIGS / "downstream" / "phantom_linear_segmentation.yaml",
        [
            f"encoder={tiny_run}",
            f"run_folder={tmp_path / 'task'}",
            f"data.shards={drawn_shards}",
            f"data.image_size_px={IMAGE_SIZE_PX}",
            "data.global_batch=8",
            "training.max_steps=2",
            "training.validate_every_steps=1",
            "procedure.learning_rates=[0.1, 0.01]",
            # As dates are: of seven digits and more none may be lost.
            "procedure.seeds=[20261129, 20261130]",
        ],
    )


def test_a_task_is_searched_then_judged_and_goes_on_without_doing_anything_twice(
    config: DownstreamConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.procedure is not None
    trained: list[str] = []
    seeds = ["20261129", "20261130"]
    left = 1

    def counted(own: DownstreamConfig, store: FeatureStore) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            return False  # as a signal ends it
        trained.append(str(own.run_folder.relative_to(config.run_folder)))
        return train_head(own, store)

    monkeypatch.setattr(task, "train_head", counted)
    assert not run_task(config, config.procedure)
    encoder = config.encoder.model_copy(update={"checkpoint": "untrained"})
    of_another = config.model_copy(update={"encoder": encoder})
    with pytest.raises(InputError, match=r"holds a task of another config: encoder.checkpoint"):
        run_task(of_another, config.procedure)
    left = 2
    assert not run_task(config, config.procedure)
    left = 10
    assert run_task(config, config.procedure)
    assert trained == ["learning_rates/0.1", "learning_rates/0.01", *map("seeds/{}".format, seeds)]
    assert "features of 32 images (train): 0.000 GiB of float32" in capsys.readouterr().err
    result = read_result(config)
    assert result is not None
    searched = {float(rate): figure for rate, figure in result.searched.items()}
    assert result.learning_rate == best_rate(searched, HIGH)
    assert list(result.runs) == seeds
    # What a launcher takes for progress: two steps of each of four runs.
    assert RunFolder(config.run_folder).saved_step() == 8
    first, second = result.runs.values()
    assert first["total"] != second["total"], "each seed draws another head"
    own = RunFolder(config.run_folder / "seeds" / seeds[0])
    with Image.open(own.examples("test")) as picture:
        assert min(picture.size) > 200
    page = own.evaluation(*JUDGED).with_suffix(".html")
    assert "data:image/png;base64," in page.read_text()
    assert HIGH.show(first["dice"]).partition(" ")[0] in page.read_text()
    means = RunFolder(config.run_folder).evaluation(*JUDGED)
    judged = json.loads(means.read_text())
    assert judged["dice"] == pytest.approx((first["dice"] + second["dice"]) / 2)
    means.unlink()  # as of a start that was killed before it wrote them
    assert run_task(config, config.procedure)
    assert json.loads(means.read_text()) == judged
    assert len(trained) == 4
    other = config.model_copy(update={"seed": 99})
    with pytest.raises(InputError, match=r"holds a task of another config: seed \(12345 then, 99"):
        run_task(other, config.procedure)
    with pytest.raises(InputError, match=r"holds a task of another config: encoder.checkpoint"):
        run_task(of_another, config.procedure)


def test_starts_share_a_task(
    config: DownstreamConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each makes what no other has in hand, and waits for the rest; each its own seeds."""
    assert config.procedure is not None
    monkeypatch.setattr(task, "SECONDS_BETWEEN_LOOKS", 0.1)
    whole = TaskFolder(config.run_folder)
    tried = [whole.part("learning_rates", rate) for rate in (0.1, 0.01)]
    folders = [each.path for each in tried]
    trained: list[Path] = []

    ended = threading.Event()

    def tell_to_end() -> None:
        # Until it is heard: only who waits listens.
        while not ended.wait(0.2):
            os.kill(os.getpid(), signal.SIGTERM)

    with (
        ending_signals_go_to(signal.SIG_IGN),
        whole.in_hand(tried[0]),
        whole.in_hand(tried[1]),
    ):
        teller = threading.Thread(target=tell_to_end)
        teller.start()
        assert not run_task(config, config.procedure), "told to end while it waits"
        ended.set()
        teller.join()
    said = capsys.readouterr().err
    hands = f"in the hands of process {os.getpid()} on "
    assert all(said.count(f"{each}: {hands}") == 1 for each in folders)
    assert sorted(path.name for path in config.run_folder.iterdir()) == ["task.json"]

    with contextlib.ExitStack() as another_start:
        another_start.enter_context(whole.in_hand(tried[0]))

        def counted(own: DownstreamConfig, store: FeatureStore) -> bool:
            trained.append(own.run_folder)
            done = train_head(own, store)
            if len(trained) == 1:
                folders[0].mkdir()
                keep_figures({"dice": 2.0}, RunFolder(folders[0]).evaluation(*TUNED))
                another_start.close()
            return done

        monkeypatch.setattr(task, "train_head", counted)
        first, second = config.procedure.seeds
        own = config.model_copy(update={"only_seeds": (second,)})
        assert run_task(own, config.procedure)
    result = read_result(config)
    assert result is not None
    assert list(result.searched) == ["0.1", "0.01"]
    assert result.learning_rate == 0.1
    assert trained == [folders[1], config.run_folder / "seeds" / str(second)]
    assert is_done(own)
    assert not is_done(config)
    assert figures_of_task(config, config.run_folder) == {}
    judged = figures_of_task(own, config.run_folder)
    assert judged == result.runs[str(second)]

    own = config.model_copy(update={"only_seeds": (first,)})
    assert run_task(own, config.procedure)
    assert trained[2:] == [config.run_folder / "seeds" / str(first)]
    assert is_done(config)
    result = read_result(config)
    assert result is not None
    assert list(result.runs) == [str(first), str(second)], "as the procedure has them"
    assert figures_of_task(config, config.run_folder) == result.means()
    both = config.model_copy(update={"only_seeds": (second, first)})
    assert figures_of_task(both, config.run_folder) == pytest.approx(result.means())
    assert json.loads(whole.task.read_text())["made_with"]["only_seeds"] == []


def test_seeds_that_a_task_has_not_are_refused(config: DownstreamConfig) -> None:
    values = config.model_dump(mode="json")
    for changes, known in (({}, "20261129, 20261130"), ({"procedure": None}, "none: it is a")):
        with pytest.raises(
            InputError, match=rf"only_seeds: 1 is none of procedure.seeds \({known}"
        ):
            validate(DownstreamConfig, values | changes | {"only_seeds": [1]}, where="test")


def test_what_a_task_cannot_use_is_refused_before_anything_is_trained(
    config: DownstreamConfig,
) -> None:
    assert config.procedure is not None
    for changes, said in (
        ({"masks": ("Edema", "Oedema")}, r"data.masks: .*'Oedema': did you mean 'Edema'\?"),
        (
            {"fraction": 0.03},
            r"data.fraction=0.03: among 1 of 32 studies .* is none with .*: use 0\.\d+ or",
        ),
    ):
        data = config.data.model_copy(update=changes)
        with pytest.raises(InputError, match=said):
            run_task(config.model_copy(update={"data": data}), config.procedure)
    training = config.training.model_copy(update={"best_metric": "map"})
    with pytest.raises(InputError, match=r"training.best_metric='map' is not measured.*dice"):
        run_task(config.model_copy(update={"training": training}), config.procedure)
    assert not config.run_folder.exists()


def test_a_warm_up_that_takes_the_whole_run_is_refused(
    drawn_shards: Path, tiny_run: Path, tmp_path: Path
) -> None:
    profile = CONFIGS / "downstream" / "phantom_unet.yaml"
    asked = (
        f"encoder={tiny_run}",
        f"run_folder={tmp_path / 'run'}",
        f"data.shards={drawn_shards}",
        f"data.image_size_px={IMAGE_SIZE_PX}",
        "data.global_batch=8",
        "protocol.encoder=finetune",
        "training.epochs=2",
    )
    for most, steps in ((10, 8), (6, 6)):
        more = (f"protocol.warmup_steps={steps}", f"training.max_steps={most}")
        said = rf"protocol.warmup_steps={steps}: the run has {steps} steps, .*: give fewer"
        with pytest.raises(InputError, match=said):
            run_downstream(profile, (*asked, *more))


def test_figures_are_means_of_what_all_runs_have() -> None:
    runs = {"0": {"dice": 0.2, "iou": 0.1}, "1": {"dice": 0.4}}
    result = TaskResult(made_with={}, encoder="", runs=runs)
    assert result.means() == {"dice": pytest.approx(0.3)}
    assert result.values_of("iou") == [0.1]


def test_figures_stand_where_the_picture_of_examples_cannot_be_written(
    config: DownstreamConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(gallery, "write_bytes_atomically", full)
    store = FeatureStore(config.features, config.run_folder / "features")
    single = config.model_copy(update={"procedure": None})
    assert train_head(single, store)
    assert 0 <= judge_head(single, store)["dice"] <= 1
    said = "examples_test.png: not written (No space left on device): the figures stand without it"
    assert said in capsys.readouterr().err
