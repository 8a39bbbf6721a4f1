"""What `doctor` finds on a machine, and of a profile."""

from __future__ import annotations

import io
import resource
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data_shards.profiles import load_profile
from distributed_pretrain.__main__ import main
from distributed_pretrain.handover import doctor
from distributed_pretrain.handover.doctor import Finding, findings
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.memory.estimate import GIB
from tests.paths import CONFIGS


def looked_at(config: PretrainConfig | None = None) -> dict[str, Finding]:
    return {each.what: each for each in findings(config)}


def test_a_profile_that_can_start_is_told_so(
    tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(tiny_profile), f"run_folder={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr().out
    assert "60 train, 20 validate, 0 test" in said
    assert "one GPU needs about" in said
    assert f"{tmp_path}: " in said
    assert not (tmp_path / "run").exists()


def test_betons_that_are_not_written_yet_are_missing(tiny_profile: Path, tmp_path: Path) -> None:
    words = ["data.reader=ffcv", f"run_folder={tmp_path / 'run'}"]
    config = load_profile(PretrainConfig, tiny_profile, words)
    shards = looked_at(config)["shards"]
    assert shards.state == "bad"
    assert "2 of 2 betons are missing (train.beton)" in shards.found
    assert "data_shards beton" in shards.remedy


def test_without_a_profile_it_looks_at_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for what in ("software", "cores", "shared memory", "open files", "disk"):
        assert what in said
    assert main(["doctor", "training.epochs=3"]) == 2
    assert "name the profile before it" in capsys.readouterr().err


def test_what_the_a100_profile_lacks_here_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(doctor, "estimate_of", lambda *_, **__: SimpleNamespace(total=30 * GIB))
    monkeypatch.setattr(doctor, "cuda_trouble", lambda: "no driver")
    config = load_profile(PretrainConfig, CONFIGS / "pretrain" / "lovt_a100.yaml")
    found = looked_at(config)
    assert {what for what, each in found.items() if each.state == "bad"} == {
        "GPU",
        "shards",
        "text encoder",
        "image encoder",
    }
    assert "hf download emilyalsentzer/Bio_ClinicalBERT" in found["text encoder"].remedy
    assert "training.device=any" in found["GPU"].remedy
    assert "is not here, and cannot be fetched (no route)" in found["image encoder"].found
    assert "put it into" in found["image encoder"].remedy
    assert found["memory"].found.startswith("one GPU needs about 30.0 GiB")


def _no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage

    def of(path: Path) -> object:
        is_shared = Path(path) == Path("/dev/shm")
        return SimpleNamespace(free=2**26) if is_shared else usage(path)

    monkeypatch.setattr(shutil, "disk_usage", of)


def _few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))


def _no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)


def _slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 100, 10))
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))


@pytest.mark.parametrize(
    ("spoil", "what", "state", "remedy"),
    [
        (_no_shared_memory, "shared memory", "bad", "--shm-size"),
        (_few_files, "open files", "look", "ulimit -n 1024"),
        (_no_disk, "disk", "bad", "run_folder=FOLDER"),
        (_slow_disk, "disk", "look", "choose another"),
    ],
)
def test_a_spoilt_machine_is_named_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[pytest.MonkeyPatch], None],
    what: str,
    state: str,
    remedy: str,
) -> None:
    spoil(monkeypatch)
    found = looked_at()[what]
    assert found.state == state
    assert remedy in found.remedy


def test_a_tar_that_is_missing_is_named(tiny_profile: Path, tmp_path: Path) -> None:
    config = load_profile(PretrainConfig, tiny_profile, [f"run_folder={tmp_path / 'run'}"])
    shutil.copytree(config.data.shards, tmp_path / "shards")
    gone = sorted((tmp_path / "shards").glob("train-*.tar"))[1]
    gone.unlink()
    data = config.data.model_copy(update={"shards": tmp_path / "shards"})
    found = looked_at(config.model_copy(update={"data": data}))["shards"]
    assert found.state == "bad"
    assert f"1 of 6 tars are missing ({gone.name})" in found.found


def test_a_gpu_in_use_and_few_cores_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = SimpleNamespace(name="A100", major=8, minor=0, total_memory=40 * GIB)
    monkeypatch.setattr(doctor, "cuda_trouble", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (30 * GIB, 40 * GIB))
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 5))
    monkeypatch.setattr(doctor, "available_cores", lambda: 2)
    found = looked_at()
    assert found["GPU 1"].state == "look"
    assert "A100, 40.0 GiB, 10.0 GiB in use" in found["GPU 1"].found
    assert found["NCCL"].found == "2.27.5 for 2 GPUs"
    assert "ask for 8 or more" in found["cores"].remedy


def test_where_torchvision_answers_its_weights_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        asked.append(f"{request.get_method()} {request.full_url}")
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert doctor._torchvision("resnet18", "IMAGENET1K_V1").state == "ok"
    [once] = asked
    assert once.startswith("HEAD https://download.pytorch.org/models/resnet18-")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / once.rpartition("/")[2]).touch()
    assert doctor._torchvision("resnet18", "IMAGENET1K_V1").found.endswith("is here")
    assert len(asked) == 1
    assert "neither a file nor weights" in doctor._torchvision("resnet18", "gone.pt").found


@pytest.mark.parametrize("name", ["/models/bio_clinical_bert", "models/of/mine"])
def test_a_folder_that_is_not_there_is_no_name_of_the_hub(name: str) -> None:
    found = doctor._named("text encoder", name)
    assert (found.state, found.found) == ("bad", f"{name}: no such folder")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_are_here_by_their_file_and_not_by_a_config(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm fetches no config, and a config alone is no encoder."""
    held = {file}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda _, each: f"cache/{each}" if each in held else None,
    )
    assert doctor._named("image encoder", "timm/resnet50.a1_in1k").state == "ok"
    held.clear()
    held.add("config.json")
    assert doctor._named("image encoder", "timm/resnet50.a1_in1k").state == "bad"
