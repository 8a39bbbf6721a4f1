"""`downstream`: a head on an encoder, trained as any run is, and judged on the test split."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from data_shards.command_line import DONE, GOES_ON
from data_shards.files.atomic import write_text_atomically
from data_shards.profiles import load_profile
from data_shards.records.study import Split
from distributed_pretrain.data.loader import EvaluationLoader, Share, TrainingLoader
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import NoReports
from distributed_pretrain.downstream.settings import JUDGED, DownstreamConfig
from distributed_pretrain.measures.auroc import Auroc
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.loss_terms import LossTerms
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.pretrain.trained import load_method
from distributed_pretrain.run_folder.checkpoint import load_weights
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.run import Parts, train
from distributed_pretrain.training.validation import Validation

MEASURES = (LossTerms, Auroc)


def run_downstream(profile: Path, overrides: Sequence[str]) -> int:
    """The exit status of a start: done and judged, or interrupted with a checkpoint saved."""
    config = load_profile(DownstreamConfig, profile, overrides)
    if not train(config, _Task(config).parts):
        return GOES_ON
    if os.environ.get("RANK", "0") == "0":
        run = RunFolder(config.run_folder)
        metrics = _Task(config).judge(run)
        path = run.evaluation(*JUDGED)
        write_text_atomically(path, json.dumps(metrics, indent=1) + "\n")
        for name, value in metrics.items():
            print(f"{name:32s} {value:8.4f}")
        print(f"written to {path}", file=sys.stderr)
    return DONE


class _Task:
    """What a config of a downstream task describes, in this process."""

    def __init__(self, config: DownstreamConfig) -> None:
        self.config = config

    def parts(self, engine: Engine, run: RunFolder) -> Parts:
        """The head, its loaders and its measures."""
        config = self.config
        share = Share(engine.rank, engine.world_size, engine.device)
        loader = TrainingLoader(
            self._split("train"),
            NoReports(),
            config.data,
            share,
            seed=config.seed,
            micro_batches=config.training.accumulation_steps,
            quarantine=run.quarantine,
        )
        objective = self._objective().to(engine.device)
        return Parts(objective, loader, self._validation("validate", objective, share))

    def judge(self, run: RunFolder) -> dict[str, float]:
        """The best weights on the test split, in one process."""
        split, checkpoint = JUDGED
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        objective = self._objective()
        objective.load_state_dict(load_weights(run.checkpoint(checkpoint)))
        alone = Share(device=device)
        return self._validation(split, objective.to(device), alone).run().metrics

    def _objective(self) -> Objective:
        config, encoder = self.config, self.config.encoder
        method = load_method(encoder.run_folder, encoder.checkpoint).method
        torch.manual_seed(config.seed)
        return config.protocol.build(method, classes=len(config.data.labels))

    def _split(self, split: Split) -> ShardSplit:
        data = self.config.data
        fraction = data.patient_fraction if split == "train" else 1.0
        return ShardSplit(data.shards, split, data.text_policy, patient_fraction=fraction)

    def _validation(self, split: Split, objective: Objective, share: Share) -> Validation:
        data = self.config.data
        loader = EvaluationLoader(self._split(split), NoReports(), data, share)
        context = Context(objective=objective, device=share.device, labels=data.labels)
        return Validation(loader.batches, context, MEASURES)
