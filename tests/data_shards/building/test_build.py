import io
import json
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from data_shards.building.build import workplace_in
from data_shards.building.settings import ShardsConfig
from data_shards.checking.preview import draw_preview
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.records.manifest import read_manifest, read_shard_index
from data_shards.records.study import StudyRecord
from distributed_pretrain.data.shards import ShardSplit
from tests.data_shards.building.whole import build_shards

MakeConfig = Callable[..., ShardsConfig]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def records(folder: Path) -> list[StudyRecord]:
    found = []
    for tar in sorted(folder.glob("*.tar")):
        with tarfile.open(tar) as archive:
            for entry in archive:
                if entry.name.endswith(".json"):
                    file = archive.extractfile(entry)
                    assert file is not None
                    found.append(StudyRecord.from_json(file.read()))
    return found


def start_build(profile: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "data_shards", "build", str(profile), *overrides]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_bytes_do_not_depend_on_workers_or_on_the_run(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    one = make_config(output=tmp_path / "one")
    two = make_config(output=tmp_path / "two", workers=2)
    build_shards(one)
    build_shards(two)
    assert len(list(one.output.glob("*.tar"))) >= 5
    assert contents(one.output) == contents(two.output)


def test_a_stopped_build_goes_on_without_touching_finished_shards(make_config: MakeConfig) -> None:
    config = make_config()
    build_shards(config)
    whole = contents(config.output)
    (config.output / "manifest.json").unlink()
    (config.output / "train-000001.index.json").unlink()
    cut = config.output / "train-000002.tar"
    cut.write_bytes(cut.read_bytes()[:-1])
    (config.output / "train-000003.tar.partial").write_bytes(b"half a shard of a killed worker")
    kept = (config.output / "train-000000.tar").stat()
    build_shards(config)
    assert contents(config.output) == whole
    after = (config.output / "train-000000.tar").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


def test_killing_a_build_at_any_moment_leaves_what_a_rerun_completes(
    archive: Path, profile: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    # Large enough that the kill falls among the shards.
    for path in (archive / "images").iterdir():
        with Image.open(path) as image:
            image.resize((1500, 1800)).save(path)
    whole = make_config(output=tmp_path / "whole")
    build_shards(whole)
    output = tmp_path / "killed"
    process = start_build(profile, f"output={output}", "workers=2")
    while not list(output.glob("*.index.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (output / "manifest.json").exists()
    build_shards(make_config(output=output))
    assert contents(output) == contents(whole.output)


def test_ctrl_c_leaves_whole_shards_and_says_how_to_go_on(
    archive: Path, profile: Path, tmp_path: Path
) -> None:
    for path in (archive / "images").iterdir():
        with Image.open(path) as image:
            image.resize((1500, 1800)).save(path)
    output = tmp_path / "shards"
    process = start_build(profile, "workers=2")
    while not list(output.glob("*.partial")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    said = "error: interrupted: what is finished is kept, and the same command goes on"
    assert errors.splitlines()[-1] == said
    assert "Traceback" not in errors
    left = {path.name for path in output.glob("*")}
    assert not [name for name in left if name.endswith(".partial") or name == "manifest.json"]


def test_the_manifest_counts_what_the_tars_hold(make_config: MakeConfig) -> None:
    config = make_config()
    manifest = build_shards(config)
    assert read_manifest(config.output) == manifest
    found = records(config.output)
    for split in ("train", "validate", "test"):
        here = [record for record in found if record.split == split]
        assert manifest.samples_by_split[split] == len(here) > 0
        assert manifest.patients_by_split[split] == len({record.patient_id for record in here})
        views = [image.view for record in here for image in record.images]
        counts = {view: views.count(view) for view in set(views) if view is not None}
        assert manifest.images_by_split_and_view[split] == counts
    patients = [
        {r.patient_id for r in found if r.split == s} for s in ("train", "validate", "test")
    ]
    assert sum(len(each) for each in patients) == len(set.union(*patients)) == 14


def test_mean_and_std_are_those_of_the_stored_training_pixels(make_config: MakeConfig) -> None:
    config = make_config()
    manifest = build_shards(config)
    pixels = []
    for tar in config.output.glob("train-*.tar"):
        with tarfile.open(tar) as archive:
            for entry in archive:
                if entry.name.endswith(".jpg"):
                    file = archive.extractfile(entry)
                    assert file is not None
                    pixels.append(np.asarray(Image.open(io.BytesIO(file.read()))).ravel())
    values = np.concatenate(pixels) / 255
    assert manifest.pixel_mean == pytest.approx(values.mean(), abs=1e-12)
    assert manifest.pixel_std == pytest.approx(values.std(), abs=1e-12)


def test_the_index_gives_every_member_by_offset(make_config: MakeConfig) -> None:
    config = make_config()
    build_shards(config)
    for path in config.output.glob("*.index.json"):
        index = read_shard_index(path)
        tar = (config.output / index.tar_name).read_bytes()
        assert {*index.samples.words_under("lovt")} == {9}
        for sample in index.samples:
            assert sample.members.keys() >= {"json", "image0.jpg"}
            described = sample.members["json"]
            record = json.loads(tar[described.offset : described.offset + described.size])
            assert record["key"] == sample.key
            image = sample.members["image0.jpg"]
            assert tar[image.offset :][:2] == b"\xff\xd8"


def test_webdataset_reads_the_shards(make_config: MakeConfig) -> None:
    webdataset = pytest.importorskip("webdataset")
    config = make_config()
    manifest = build_shards(config)
    tars = [str(config.output / shard.tar_name) for shard in manifest.shards]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert len(samples) == sum(manifest.samples_by_split.values())
    assert all("image0.jpg" in sample and "json" in sample for sample in samples)


def test_another_plan_in_the_same_folder_is_refused(make_config: MakeConfig) -> None:
    config = make_config()
    build_shards(config)
    before = contents(config.output)
    with pytest.raises(InputError, match=r"another source, seed or setting .*another output="):
        build_shards(make_config(seed=1))
    assert contents(config.output) == before


def test_shards_of_a_table_edited_since_are_refused_and_never_taken_for_new(
    make_config: MakeConfig, archive: Path, tmp_path: Path
) -> None:
    config = make_config()
    build_shards(config)
    before = contents(config.output)
    table = archive / "pairs.csv"
    table.write_text(table.read_text().replace("Patient 3 is well", "Patient 3 is ill"))
    with pytest.raises(InputError, match=r"an edited table .* another output="):
        build_shards(config)
    assert contents(config.output) == before
    edited = make_config(output=tmp_path / "edited")
    build_shards(edited)
    texts = [record.report.raw for record in records(edited.output)]
    assert sum("Patient 3 is ill" in text for text in texts) == 2


def test_an_index_in_another_s_place_is_written_again_and_a_damaged_one_named(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    build_shards(config)
    before = contents(config.output)
    index = config.output / "train-000001.index.json"
    index.write_bytes((config.output / "train-000000.index.json").read_bytes())
    build_shards(config)
    assert contents(config.output) == before
    index.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"train-000001.index.json: .*delete it with its tar"):
        build_shards(config)


def test_images_of_one_value_can_be_stored_and_looked_at_but_not_trained_on(
    make_config: MakeConfig, archive: Path
) -> None:
    for path in (archive / "images").iterdir():
        Image.new("L", (40, 40), 51).save(path)
    config = make_config()
    build_shards(config)
    found = "\n".join(verify_shards(config.output, workers=1).problems)
    assert "every training image is of one value" in found
    with pytest.raises(InputError, match="every training image is of one value"):
        ShardSplit(config.output, "train", "lovt")
    assert draw_preview(config.output, split="train", samples=1).is_file()


def test_two_builds_do_not_write_into_one_folder(make_config: MakeConfig) -> None:
    folder = make_config().output
    with (
        workplace_in(folder, part=None),
        pytest.raises(InputError, match="another build is writing here"),
    ):
        build_shards(make_config())


def test_a_disk_that_is_full_while_the_phantom_is_drawn_gives_one_line(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    profile = tmp_path / "phantom.yaml"
    counts = {"train_studies": 2, "validate_studies": 1, "test_studies": 1}
    values = {
        "phantom": {"archive": str(archive), "image_size_px": 64} | counts,
        "source": {"name": "mimic_cxr"},
        "output": str(tmp_path / "shards"),
        "workers": 1,
    }
    profile.write_text(yaml.safe_dump(values))
    # Enough for the settings, too little for an image.
    limit = 600
    finished = subprocess.run(
        [sys.executable, "-m", "data_shards", "build", str(profile)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    line = finished.stderr.splitlines()[-1]
    assert line.startswith(f"error: {archive}: no space left to write the phantom (File too large)")
    assert "another phantom.archive=..." in line
    files = [path.name for path in archive.rglob("*") if path.is_file()]
    assert files == ["phantom.json"]
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_gives_one_line_and_leaves_no_half_written_file(
    archive: Path, profile: Path, tmp_path: Path, workers: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    for path in (archive / "images").iterdir():
        Image.fromarray(noise).save(path)
    # The kernel refuses to let any file grow further, as it does on a full disk.
    limit = 24_000
    finished = subprocess.run(
        [sys.executable, "-m", "data_shards", "build", str(profile), f"workers={workers}"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    line = finished.stderr.splitlines()[-1]
    assert "no space left to write shards" in line
    assert "the same command goes on" in line
    assert not list(tmp_path.glob("shards/*.partial"))
    assert not (tmp_path / "shards" / "manifest.json").exists()
