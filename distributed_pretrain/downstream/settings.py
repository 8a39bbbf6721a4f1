"""A downstream task as one typed config: an encoder, data, and the protocol of its head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from data_shards.profiles import FREE, Config
from data_shards.records.study import Split
from distributed_pretrain.downstream.protocols.catalog import AnyProtocolConfig
from distributed_pretrain.measures.metric import read_figures
from distributed_pretrain.pretrain import settings as pretrain
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import BEST
from distributed_pretrain.training.settings import RunConfig

# The split and the weights that a task is judged by.
JUDGED: tuple[Split, str] = ("test", BEST)


class EncoderConfig(Config):
    """Where the encoder comes from: a run folder of `pretrain`.

    `checkpoint` is best, last, a step folder's name, or untrained (as that run began).
    """

    run_folder: Annotated[Path, FREE]
    checkpoint: str = BEST


class DownstreamConfig(RunConfig):
    """One head, trained on the training split and judged on the test split by its best weights.

    Images are shown as `data` says, whatever the encoder was pre-trained with.
    """

    encoder: EncoderConfig
    protocol: AnyProtocolConfig


def refuse_what_cannot_start(config: DownstreamConfig, folder: Path, ranks: int) -> None:
    """Raise InputError for what would end a start in its first minute."""
    pretrain.refuse_what_cannot_start(config, folder, ranks)
    RunFolder(config.encoder.run_folder).refuse_missing(checkpoint=config.encoder.checkpoint)


def figures_of_task(_: DownstreamConfig, folder: Path) -> dict[str, float]:
    """What was measured on the test split; empty before."""
    return read_figures(RunFolder(folder).evaluation(*JUDGED))
