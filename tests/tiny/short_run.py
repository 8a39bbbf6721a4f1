"""A run of six tiny steps, cut back to its fifth: what tests damage, and go on with in-process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from data_shards.profiles import load_profile
from distributed_pretrain.__main__ import main
from distributed_pretrain.pretrain.build import build_parts
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import step_folder
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.loop import Trainer
from distributed_pretrain.training.run import build_trainer, make_engine

STEPS, SAVED = 6, 5
OVERRIDES = (
    "training.max_steps=6",
    "training.validate_every_steps=3",
    "training.checkpoint_every_steps=1",
    "training.keep_checkpoints=3",
)


def train(profile: Path, folder: Path, *more: str) -> int:
    """The status of starting, or going on with, the run in this process."""
    return main(["pretrain", str(profile), f"run_folder={folder}", *OVERRIDES, *more])


@contextlib.contextmanager
def started(profile: Path, folder: Path) -> Iterator[Trainer]:
    """The run at its first step of a start that trains nothing, and compiles nothing."""
    overrides = (f"run_folder={folder}", *OVERRIDES, "training.compile=false")
    config = load_profile(PretrainConfig, profile, overrides)
    engine, run = make_engine(config.training), RunFolder(config.run_folder)
    alone = Liveness(rank=0, world_size=1, timeout_seconds=60)
    with run.locked():
        trainer = build_trainer(config, engine, run, alone, partial(build_parts, config))
        with contextlib.closing(trainer):
            yield trainer


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The newest weights of a run."""
    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def same_weights(folder: Path, other: Path) -> bool:
    """Whether two runs came to the same weights, to the last bit."""
    found, wanted = weights_of(folder), weights_of(other)
    equal = all(torch.equal(found[name], wanted[name]) for name in found.keys() & wanted.keys())
    return equal and found.keys() == wanted.keys()


def cut_back(finished: Path, folder: Path) -> Path:
    """A copy of a finished short run as it was after its fifth step."""
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(step_folder(folder / "checkpoints", STEPS))
    (folder / "checkpoints" / "last").unlink()
    (folder / "checkpoints" / "last").symlink_to(step_folder(Path(), SAVED).name)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= SAVED]
    (folder / "metrics.jsonl").write_text("".join(kept))
    return folder


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file, of a checkpoint with its checksum."""
    payload = change(path.read_bytes())
    path.write_bytes(payload)
    marker = path.with_name("COMPLETE")
    if not marker.exists():
        return
    digests = json.loads(marker.read_text()) | {path.name: hashlib.sha256(payload).hexdigest()}
    marker.write_text(json.dumps(digests))


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file of a folder, and where its links lead, by name; but the lock."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and name != "lock":
            found[name] = path.read_bytes()
    return found


def the_error(said: str) -> str:
    """The one line that a refusal is."""
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line
