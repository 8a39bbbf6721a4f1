"""Patients that an encoder was trained on and is judged by: none should be."""

from __future__ import annotations

from data_shards.errors import InputError, warn
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.downstream.settings import JUDGED, DownstreamConfig
from distributed_pretrain.pretrain.build import open_split
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import UNTRAINED


def check_overlap(config: DownstreamConfig) -> int:
    """How many patients of the test split the encoder's run has learnt from, of the same source.

    Warns of them, and where the run's shards are not there to tell; with `strict_overlap` raises
    InputError instead. Patients of another source have ids of their own, which say nothing: who is
    strict is told so. Weights as they began have learnt from nobody.
    """
    folder = config.encoder.run_folder
    if folder is None:
        return 0
    if RunFolder(folder).checkpoint_name(config.encoder.checkpoint) == UNTRAINED:
        return 0
    split, _ = JUDGED
    judged = ShardSplit(config.data.files(), split, config.data.text_policy)
    pretrained = RunFolder(folder).read_config(PretrainConfig).data
    try:
        learnt = open_split(pretrained, "train")
    except InputError as error:
        line = f"{folder}: whether it learnt from patients of the test split is not known ({error})"
        _complain(config, line)
        return 0
    if learnt.manifest.source != judged.manifest.source:
        if config.strict_overlap:
            warn(
                f"{config.data.shards} and the shards of {folder} are of two sources, whose ids "
                "cannot be compared: `python -m data_shards overlap` finds images that both hold"
            )
        return 0
    shared = len(learnt.patients & judged.patients)
    if shared:
        _complain(
            config,
            f"{shared} of {len(judged.patients)} patients of the test split of "
            f"{config.data.shards} are among those that {folder} learnt from",
        )
    return shared


def _complain(config: DownstreamConfig, line: str) -> None:
    if config.strict_overlap:
        raise InputError(f"{line}: judge it on others, or set strict_overlap=false")
    warn(line)
