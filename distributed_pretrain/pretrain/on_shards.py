"""What runs share that train an objective on the shards of their profile: loaders and measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

import torch

from data_shards.files.json_lines import JsonLines
from data_shards.records.manifest import MANIFEST_NAME
from data_shards.records.study import Split
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.quarantine import Quarantine
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import ReportTokenizer
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.pretrain.settings import ShardsRunConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.flops import StepFlops
from distributed_pretrain.training.run import Parts
from distributed_pretrain.training.validation import Validation


def open_split(data: DataConfig, split: Split) -> ShardSplit:
    """A split of the shards; of the training split the patients that are asked for."""
    fraction = data.patient_fraction if split == "train" else 1.0
    return ShardSplit.open(data.shards, split, data.text_policy, patient_fraction=fraction)


@dataclass(frozen=True)
class OnShards:
    """An objective, on `device`, with the kinds of measures that judge it on a config's shards."""

    config: ShardsRunConfig
    objective: Objective
    tokenizer: ReportTokenizer
    kinds: tuple[type[Measure], ...]
    device: torch.device
    rank: int = 0
    world_size: int = 1

    def parts(
        self,
        run: RunFolder,
        training: ShardSplit,
        validation: ShardSplit,
        count_flops: Callable[[], StepFlops] = StepFlops.unknown,
    ) -> Parts:
        """What this rank trains with; unreadable samples are named in the run's folder."""
        data = self.config.data
        loader = TrainingLoader(
            training,
            self.tokenizer,
            data,
            seed=self.config.seed,
            rank=self.rank,
            world_size=self.world_size,
            micro_batches=self.config.training.accumulation_steps,
            quarantine=self._quarantine(training, run.quarantine),
            device=self.device,
        )
        return Parts(
            objective=self.objective,
            loader=loader,
            validation=self.validation(validation, run.quarantine),
            data_name=str(data.shards),
            data_sha256=sha256((data.shards / MANIFEST_NAME).read_bytes()).hexdigest(),
            count_flops=count_flops,
        )

    def validation(self, split: ShardSplit, bad: JsonLines | None = None) -> Validation:
        """The measures over a split, on all ranks; `bad` are the lines of unreadable samples."""
        data = self.config.data
        loader = EvaluationLoader(
            split,
            self.tokenizer,
            data,
            rank=self.rank,
            world_size=self.world_size,
            quarantine=self._quarantine(split, bad),
            device=self.device,
        )
        context = Context(
            objective=self.objective,
            device=self.device,
            text_policy=data.text_policy,
            labels=data.labels,
            crop_fraction=data.augmentation.evaluation_crop_fraction,
            seed=self.config.seed,
            encode=self.tokenizer.encode,
        )
        return Validation(loader.batches, context, self.kinds)

    def _quarantine(self, split: ShardSplit, lines: JsonLines | None) -> Quarantine:
        most = self.config.data.max_bad_fraction
        return Quarantine.of(split, most, lines=lines, rank=self.rank)
