"""The door to what pre-training left: a run folder's method, with the weights of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from distributed_pretrain.data.tokenization import ReportTokenizer
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.pretrain.build import build_method, tokenizer_of
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.checkpoint import load_weights
from distributed_pretrain.run_folder.folder import RunFolder

UNTRAINED = "untrained"


@dataclass(frozen=True)
class TrainedMethod:
    """A method on the CPU, with the config and the tokenizer of its run."""

    config: PretrainConfig
    tokenizer: ReportTokenizer
    method: Method


def load_method(run_folder: Path, checkpoint: str) -> TrainedMethod:
    """The method of a run: `checkpoint` is best, last, a step folder's name, or untrained.

    `untrained` is the same method as the run began with. Raises InputError for a folder without
    run or checkpoint.
    """
    run = RunFolder(run_folder)
    config = run.read_config(PretrainConfig)
    tokenizer = tokenizer_of(config, run)
    torch.manual_seed(config.seed)
    method = build_method(config, tokenizer)
    if checkpoint != UNTRAINED:
        method.load_state_dict(load_weights(run.checkpoint(checkpoint)))
    return TrainedMethod(config, tokenizer, method)
