"""`downstream`: a head on an encoder, trained as any run is, and judged on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from data_shards.command_line import DONE, GOES_ON
from data_shards.profiles import load_profile
from distributed_pretrain.data.loader import Share
from distributed_pretrain.data.tokenization import NoReports
from distributed_pretrain.downstream.settings import JUDGED, DownstreamConfig
from distributed_pretrain.measures.catalog import DOWNSTREAM
from distributed_pretrain.measures.metric import write_figures
from distributed_pretrain.pretrain.build import OnShards, load_method, open_split
from distributed_pretrain.ranks import launcher_number
from distributed_pretrain.run_folder.checkpoint import load_weights
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.identity import identity_of
from distributed_pretrain.run_folder.intact import Owner
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.run import Parts, train


def run_downstream(profile: Path, overrides: Sequence[str]) -> int:
    """The exit status of a start: done and judged, or interrupted with a checkpoint saved."""
    config = load_profile(DownstreamConfig, profile, overrides)
    if not train(config, partial(_build_parts, config)):
        return GOES_ON
    if not launcher_number("RANK"):
        run = RunFolder(config.run_folder)
        write_figures(_judge(config, run), run.evaluation(*JUDGED))
    return DONE


def _build_parts(config: DownstreamConfig, engine: Engine, run: RunFolder) -> Parts:
    training, validation = open_split(config.data, "train"), open_split(config.data, "validate")
    head = _head_of(config, Share(engine.rank, engine.world_size, engine.device))
    return head.parts(run, training, validation)


def _judge(config: DownstreamConfig, run: RunFolder) -> dict[str, float]:
    """The best weights on the test split, in one process."""
    split, checkpoint = JUDGED
    head = _head_of(
        config, Share(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    )
    like, owner = head.objective.state_dict(), Owner(config, identity_of(run))
    head.objective.load_state_dict(load_weights(run.checkpoint(checkpoint), like, owner))
    figures, _ = head.validation(open_split(config.data, split)).run()
    return figures


def _head_of(config: DownstreamConfig, share: Share) -> OnShards:
    method = load_method(config.encoder.run_folder, config.encoder.checkpoint).method
    torch.manual_seed(config.seed)
    objective = config.protocol.build(method, classes=len(config.data.labels)).to(share.device)
    return OnShards(config, objective, NoReports(), DOWNSTREAM, share)
