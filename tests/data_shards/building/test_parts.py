"""Parts of a build: processes of their own that share nothing but the folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image

from data_shards.__main__ import main
from data_shards.building.build import BuiltPart, build_part
from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from tests.data_shards.building.whole import build_shards

MakeConfig = Callable[..., ShardsConfig]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in sorted(folder.rglob("*"))
    }


def times(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (each.st_ino, each.st_mtime_ns) for name, each in stats.items()}


def start(profile: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "data_shards", "build", str(profile), *overrides]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def large_images(archive: Path) -> None:
    """A build takes long enough to be met at work."""
    for path in (archive / "images").iterdir():
        with Image.open(path) as image:
            image.resize((1500, 1800)).save(path)


@contextmanager
def stopped_at_work(profile: Path, output: Path, *overrides: str) -> Iterator[None]:
    """A build held in the middle of a shard, and killed in the end."""
    process = start(profile, f"output={output}", *overrides)
    try:
        while True:
            assert process.poll() is None
            if list(output.rglob("*.tar.partial")):
                process.send_signal(signal.SIGSTOP)
                os.waitpid(process.pid, os.WUNTRACED)
                # It may have finished that shard in between.
                if list(output.rglob("*.tar.partial")):
                    break
                process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """What a build that succeeds prints."""
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return printed


def test_parts_side_by_side_give_the_bytes_of_a_whole_build(
    profile: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    whole = make_config(output=tmp_path / "whole")
    assert len(build_shards(whole).shards) > 3
    output = tmp_path / "parts"
    running = [start(profile, f"output={output}", f"part={number}/3") for number in (1, 2, 3)]
    printed = [finish(process) for process in running]
    assert contents(output) == contents(whole.output)
    assert any(f"shards: {output}" in each for each in printed)


def test_of_more_parts_than_shards_some_have_nothing_to_do(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    manifest = build_shards(make_config(output=tmp_path / "whole"))
    parts = len(manifest.shards) + 2
    built = [build_part(make_config(part=f"{number}/{parts}")) for number in range(1, parts + 1)]
    missing = [each.missing for each in built]
    assert missing == [*range(len(manifest.shards) - 1, -1, -1), 0, 0]
    assert [each.manifest for each in built[-3:]] == [manifest] * 3
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_parts_that_find_no_phantom_draw_it_once(tmp_path: Path) -> None:
    counts = {"train_studies": 20, "validate_studies": 2, "test_studies": 2}
    values = {
        "phantom": {"image_size_px": 64} | counts,
        "source": {"name": "mimic_cxr"},
        "output": "unset",
        "samples_per_shard": 4,
        "workers": 1,
    }
    profile = tmp_path / "phantom.yaml"
    profile.write_text(yaml.safe_dump(values))

    def of(name: str) -> tuple[str, str]:
        return f"output={tmp_path / name}/shards", f"phantom.archive={tmp_path / name}/archive"

    finish(start(profile, *of("whole")))
    running = [start(profile, *of("parts"), f"part={number}/3") for number in (1, 2, 3)]
    for process in running:
        finish(process)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_the_last_part_alone_writes_the_manifest(
    profile: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = make_config(output=tmp_path / "whole")
    planned = len(build_shards(whole).shards)
    shards = tmp_path / "shards"
    # Not in order: nothing depends on the number of the part that is last.
    for number in (3, 1):
        assert main(["build", str(profile), f"part={number}/3"]) == 0
        missing = planned - len(list(shards.glob("*.tar")))
        line = (
            f"part {number}/3 done: {missing} of {planned} shards are still to be written by "
            "other parts; the last one writes the manifest\n"
        )
        assert capsys.readouterr().out == line
        assert not (shards / "manifest.json").exists()
    assert main(["build", str(profile), "part=2/3"]) == 0
    assert f"shards: {shards}" in capsys.readouterr().out
    assert contents(shards) == contents(whole.output)


def test_parts_share_the_shards_of_every_split_evenly(make_config: MakeConfig) -> None:
    output = make_config().output
    planned = build_part(make_config(part="1/2")).planned
    first = {path.name for path in output.glob("*.tar")}
    build_part(make_config(part="2/2"))
    every = {path.name for path in output.glob("*.tar")}
    assert len(every) == planned
    for split in ("train", "validate", "test"):
        here = sum(name.startswith(split) for name in first)
        all_parts = sum(name.startswith(split) for name in every)
        assert abs(2 * here - all_parts) <= 1


def test_a_rerun_of_a_done_part_changes_nothing(make_config: MakeConfig) -> None:
    output = make_config().output
    first = build_part(make_config(part="1/2"))
    before = times(output)
    assert build_part(make_config(part="1/2")) == first
    assert times(output) == before
    last = build_part(make_config(part="2/2"))
    assert last.manifest is not None
    before = times(output)
    # One with shards, and one with none to write.
    for part in ("1/2", "99/99"):
        assert build_part(make_config(part=part)) == last
        assert times(output) == before


def test_a_part_with_nothing_to_do_leaves_the_manifest_of_a_damaged_folder(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    planned = len(build_shards(config).shards)
    (config.output / "train-000001.tar").unlink()
    before = contents(config.output)
    assert build_part(make_config(part="1/2")) == BuiltPart(planned, 1, manifest=None)
    assert contents(config.output) == before


def test_a_part_writes_the_manifest_that_a_killed_last_one_did_not(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    manifest = build_shards(config)
    whole = contents(config.output)
    (config.output / "manifest.json").unlink()
    assert build_part(make_config(part="1/2")).manifest == manifest
    assert contents(config.output) == whole


@pytest.mark.usefixtures("large_images")
@pytest.mark.parametrize("again", ["the same part", "a whole build"])
def test_what_a_killed_part_leaves_is_cleaned_and_completed(
    profile: Path, make_config: MakeConfig, tmp_path: Path, again: str
) -> None:
    whole = make_config(output=tmp_path / "whole")
    build_shards(whole)
    output = tmp_path / "killed"
    with stopped_at_work(profile, output, "part=2/3"):
        pass
    assert list(output.rglob("*.tar.partial"))
    if again == "the same part":
        for number in (1, 2, 3):
            build_part(make_config(output=output, part=f"{number}/3"))
    else:
        build_shards(make_config(output=output))
    assert contents(output) == contents(whole.output)


@pytest.mark.usefixtures("large_images")
def test_a_running_part_keeps_out_a_whole_build_and_itself_but_no_other_part(
    profile: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    output = tmp_path / "shards"
    with stopped_at_work(profile, output, "part=1/2"):
        half_written = [(path, path.stat().st_ino) for path in output.rglob("*.tar.partial")]
        with pytest.raises(InputError, match="another build is writing here: wait for it"):
            build_shards(make_config())
        with pytest.raises(InputError, match="part 1/2 is being built already"):
            build_part(make_config(part="1/2"))
        assert build_part(make_config(part="2/2")).missing > 0
        # Parts of another number write the same shards, each into files of its own.
        assert build_part(make_config(part="1/1")).missing == 0
        assert half_written
        assert half_written == [(p, p.stat().st_ino) for p in output.rglob("*.tar.partial")]
    build_shards(make_config())
    build_shards(make_config(output=tmp_path / "whole"))
    assert contents(output) == contents(tmp_path / "whole")


@pytest.mark.usefixtures("large_images")
def test_a_running_whole_build_keeps_out_parts(
    profile: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    with (
        stopped_at_work(profile, tmp_path / "shards"),
        pytest.raises(InputError, match="another build is writing here"),
    ):
        build_part(make_config(part="1/2"))


def test_parts_of_different_settings_get_no_manifest(make_config: MakeConfig) -> None:
    # As when both start at once, and each finds the folder empty.
    build_shards(make_config())
    output = make_config().output
    (output / "manifest.json").unlink()
    foreign = make_config(seed=1, output=output.parent / "foreign")
    build_shards(foreign)
    index = "train-000001.index.json"
    (output / index).write_bytes((foreign.output / index).read_bytes())
    with pytest.raises(InputError, match=r"another source, seed or setting"):
        build_part(make_config(part="1/2"))
    assert not (output / "manifest.json").exists()


def test_a_failing_part_leaves_no_half_written_file(
    archive: Path, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (archive / "images").iterdir():
        path.write_bytes(path.read_bytes()[:700])
    assert main(["build", str(profile), "part=1/2", "workers=2"]) == 2
    assert "truncated or damaged image" in capsys.readouterr().err
    assert not (profile.parent / "shards").exists()


@pytest.mark.parametrize("part", ["0/4", "5/4", "3", "1/0", "-1/4", "1/4/2", "a/b", "[1, 4]"])
def test_a_part_that_is_none_is_refused_in_one_line(
    profile: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    assert main(["build", str(profile), f"part={part}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {profile}: part: write i/n with 1 <= i <= n, such as part=3/16")
    assert not (profile.parent / "shards").exists()


def test_a_folder_of_someone_else_among_the_shards_is_left_alone(make_config: MakeConfig) -> None:
    output = make_config().output
    job = output / "job"
    job.mkdir(parents=True)
    job.chmod(0o700)
    (job / "1_0_log.out").write_text("started")
    for part in ("1/2", "2/2"):
        build_part(make_config(part=part))
    build_shards(make_config())
    assert verify_shards(output, workers=1).problems == ()
    assert contents(job) == {"1_0_log.out": b"started"}
    assert job.stat().st_mode & 0o777 == 0o700
