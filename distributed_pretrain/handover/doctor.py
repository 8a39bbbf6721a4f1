"""`doctor`: what would spoil a long job on this machine, found before it is started."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.cuda.nccl

from data_shards.beton.layout import WRITE, beton_name
from data_shards.command_line import BAD_INPUT, DONE, shell_line
from data_shards.errors import InputError
from data_shards.files.atomic import sync
from data_shards.processes import available_cores
from data_shards.profiles import load_profile
from data_shards.records.manifest import read_manifest
from data_shards.records.study import SPLITS
from data_shards.remote.fetch import StoreError
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig
from distributed_pretrain.pretrain.memory import estimate_of
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.engine.device import cuda_trouble
from distributed_pretrain.training.memory.estimate import GIB

# Ranks share batches and NCCL its buffers there.
_SHARED_MEMORY, _LEAST_SHARED_GIB = Path("/dev/shm"), 1.0
# Shards, sockets of ranks and threads' files.
_LEAST_FILES = 4096
_TRIED_MIB, _LEAST_MIB_A_SECOND = 64, 50.0
_ANSWER_SECONDS = 5.0
_WEIGHTS = tuple(
    name + end for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json")
)
_CORES_A_GPU = 4


class Finding(NamedTuple):
    """One thing that was looked at: "bad" ends a run or spoils it, "look" may slow it down."""

    state: Literal["ok", "look", "bad"]
    what: str
    found: str
    remedy: str = ""


def run_doctor(arguments: Sequence[str]) -> int:
    """Print what was found, with a remedy where there is one.

    `arguments` may begin with a pre-training profile, which is looked at too; the rest are changes
    to it. The exit status is that of bad input where something is bad. Raises InputError for
    changes to no profile, and for a profile that cannot be read.
    """
    profile = Path(arguments[0]) if arguments and "=" not in arguments[0] else None
    if profile is None and arguments:
        raise InputError(f"doctor: {arguments[0]}: of no profile: name the profile before it")
    config = load_profile(PretrainConfig, profile, arguments[1:]) if profile else None
    worst = DONE
    for found in findings(config):
        print(f"{found.state:4s}  {found.what:14s}  {found.found}", flush=True)
        if found.remedy:
            print(f"{'':22s}{found.remedy}")
        worst = BAD_INPUT if found.state == "bad" else worst
    return worst


def findings(config: PretrainConfig | None) -> Iterator[Finding]:
    """Everything that is looked at, one after the other: some take seconds."""
    yield _software()
    yield from _gpus(config)
    yield _cores()
    yield _shared_memory()
    yield _open_files()
    yield _disk(Path() if config is None else config.run_folder)
    if config is not None:
        yield _shards(config)
        yield from _weights(config)
        yield _memory(config)


def _software() -> Finding:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return Finding("ok", "software", f"{versions}, {platform.system()} {platform.machine()}")


def _gpus(config: PretrainConfig | None) -> Iterator[Finding]:
    trouble = cuda_trouble()
    if trouble is not None:
        needed = config is not None and config.training.device == "cuda"
        yield Finding(
            "bad" if needed else "look",
            "GPU",
            trouble,
            "install a driver that this torch's CUDA "
            f"({torch.version.cuda or 'none: a build for CPUs'}) runs with, or a torch for yours"
            + (", or pass training.device=any to go on on the CPU" if needed else ""),
        )
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, whole = torch.cuda.mem_get_info(number)
        used = (whole - free) / GIB
        state: Literal["ok", "look"] = "look" if used > 2 else "ok"
        yield Finding(
            state,
            f"GPU {number}",
            f"{facts.name}, {whole / GIB:.1f} GiB, {used:.1f} GiB in use, compute "
            f"{facts.major}.{facts.minor}",
            "another process is on it: see nvidia-smi" if state == "look" else "",
        )
    if torch.cuda.device_count() > 1:
        version = ".".join(map(str, torch.cuda.nccl.version()))
        yield Finding("ok", "NCCL", f"{version} for {torch.cuda.device_count()} GPUs")


def _cores() -> Finding:
    cores, gpus = available_cores(), max(1, torch.cuda.device_count())
    if torch.cuda.is_available() and cores < _CORES_A_GPU * gpus:
        return Finding(
            "look",
            "cores",
            f"{cores} for {gpus} GPUs",
            f"ask for {_CORES_A_GPU * gpus} or more (cpus_per_task): decoding needs them",
        )
    return Finding("ok", "cores", str(cores))


def _shared_memory() -> Finding:
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free / GIB
    except OSError:
        return Finding("look", "shared memory", f"no {_SHARED_MEMORY}", "mount one")
    if free < _LEAST_SHARED_GIB:
        return Finding(
            "bad",
            "shared memory",
            f"{free:.2f} GiB free",
            f"ranks and loaders want {_LEAST_SHARED_GIB:g} GiB or more: start the container with "
            "--shm-size=8g",
        )
    return Finding("ok", "shared memory", f"{free:.1f} GiB free")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _LEAST_FILES:
        return Finding(
            "look",
            "open files",
            f"{soft} at most",
            f"ulimit -n {_LEAST_FILES if hard < 0 else min(hard, _LEAST_FILES)}",
        )
    return Finding("ok", "open files", f"{soft} at most")


def _disk(folder: Path) -> Finding:
    """The speed of writing, past the cache, where the run's checkpoints will be."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    payload = os.urandom(1 << 20)
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            started = time.perf_counter()
            for _ in range(_TRIED_MIB):
                file.write(payload)
            file.flush()
            sync(Path(file.name))
            speed = _TRIED_MIB / (time.perf_counter() - started)
    except OSError as error:
        told = f"{there}: cannot be written ({error.strerror})"
        return Finding("bad", "disk", told, "pass run_folder=FOLDER")
    free = shutil.disk_usage(there).free / GIB
    found = f"{there}: {speed:.0f} MiB/s written, {free:.0f} GiB free"
    if speed < _LEAST_MIB_A_SECOND:
        return Finding("look", "disk", found, "each checkpoint will take long: choose another")
    return Finding("ok", "disk", found)


def _shards(config: PretrainConfig) -> Finding:
    try:
        files = config.data.files()
        folder = files.manifest_folder()
        manifest = read_manifest(folder)
        counts = ", ".join(f"{manifest.samples_by_split.get(each, 0):,} {each}" for each in SPLITS)
        if files.is_remote:
            smallest = min(manifest.shards, key=lambda each: each.bytes)
            files.path(smallest.tar_name)
            return Finding("ok", "shards", f"{files}: {counts}; a tar arrives whole")
    except (InputError, StoreError) as error:
        return Finding("bad", "shards", str(error))
    names, what = [each.tar_name for each in manifest.shards], "tars"
    remedy = "give the `build` that wrote them once more"
    if files.reader == "ffcv":
        names = [beton_name(each) for each in SPLITS if manifest.samples_by_split.get(each)]
        what, remedy = "betons", f"run `{shell_line(*WRITE, folder)}`"
    missing = [each for each in names if not (folder / each).is_file()]
    if missing:
        told = f"{folder}: {len(missing)} of {len(names)} {what} are missing ({missing[0]})"
        return Finding("bad", "shards", told, remedy)
    started, read = time.perf_counter(), 0
    for each in names:
        with (folder / each).open("rb", buffering=0) as file:
            read += len(file.read(_TRIED_MIB << 20))
        if read >= _TRIED_MIB << 20:
            break
    speed = read / (1 << 20) / (time.perf_counter() - started)
    return Finding("ok", "shards", f"{folder}: {counts}; {speed:.0f} MiB/s read")


def _weights(config: PretrainConfig) -> Iterator[Finding]:
    """Of encoders that a name stands for: whether they are here, or can be fetched."""
    report, image = config.method.report_encoder, config.method.image_encoder
    if isinstance(report, PretrainedReportEncoderConfig):
        yield _named("text encoder", report.model)
    if image.weights is not None and not Path(image.weights).exists():
        if image.backbone.startswith("timm/"):
            name = image.backbone.removeprefix("timm/").partition(".")[0]
            yield _named("image encoder", f"timm/{name}.{image.weights}")
        else:
            yield _torchvision(image.backbone, image.weights)


def _named(what: str, name: str) -> Finding:
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        # timm fetches its weights without their config.
        kept = [try_to_load_from_cache(name, each) for each in _WEIGHTS]
    except HFValidationError:
        if not Path(name).is_dir():
            return Finding("bad", what, f"{name}: no such folder", "name one that is there")
        kept = []
    if Path(name).is_dir() or any(isinstance(each, str) for each in kept):
        return Finding("ok", what, f"{name}: is here")
    remedy = f"where there is a network: hf download {name} --local-dir FOLDER, and give FOLDER"
    if constants.HF_HUB_OFFLINE:
        return Finding("bad", what, f"{name}: is not here, and HF_HUB_OFFLINE is set", remedy)
    try:
        HfApi().model_info(name, timeout=_ANSWER_SECONDS)
    except Exception as error:  # noqa: BLE001  (of whatever it speaks HTTP with)
        reason = " ".join(str(error).split())[:120]
        return Finding("bad", what, f"{name}: is not here, and the hub says: {reason}", remedy)
    return Finding("ok", what, f"{name}: will be fetched from the hub")


def _torchvision(backbone: str, weights: str) -> Finding:
    import torchvision

    try:
        known = torchvision.models.get_model_weights(backbone)[weights]
    except (KeyError, ValueError):
        return Finding(
            "bad",
            "image encoder",
            f"{weights}: neither a file nor weights that torchvision has of {backbone}",
            "give method.image_encoder.weights a file that is there, or null",
        )
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    if (cache / Path(known.url).name).is_file():
        return Finding("ok", "image encoder", f"{backbone} {weights}: is here")
    try:
        asked = urllib.request.Request(known.url, method="HEAD")
        urllib.request.urlopen(asked, timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        return Finding(
            "bad",
            "image encoder",
            f"{backbone} {weights}: is not here, and cannot be fetched ({error})",
            f"where there is a network: fetch {known.url}, and put it into {cache}",
        )
    return Finding("ok", "image encoder", f"{backbone} {weights}: will be fetched")


def _memory(config: PretrainConfig) -> Finding:
    try:
        estimate = estimate_of(config, ranks=1)
    except InputError as error:
        return Finding("look", "memory", f"no estimate: {error}")
    needed = f"one GPU needs about {estimate.total / GIB:.1f} GiB"
    if not torch.cuda.is_available():
        return Finding("ok", "memory", f"{needed}, of which there is none here to compare")
    there = torch.cuda.get_device_properties(0).total_memory
    if estimate.total > there:
        return Finding(
            "bad",
            "memory",
            f"{needed}, GPU 0 has {there / GIB:.1f} GiB",
            "`memory PROFILE` says of what, and training.accumulation_steps makes it less",
        )
    return Finding("ok", "memory", f"{needed} of {there / GIB:.1f} GiB")
