"""What runs share that train an objective on the shards of their profile: loaders and measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data_shards.files.json_lines import JsonLines
from data_shards.records.study import Split
from distributed_pretrain.data.loader import EvaluationLoader, Share, TrainingLoader
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import ReportTokenizer
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.flops import StepFlops
from distributed_pretrain.training.run import Parts
from distributed_pretrain.training.settings import RunConfig
from distributed_pretrain.training.validation import Validation


def open_split(data: DataConfig, split: Split) -> ShardSplit:
    """A split of the shards; of the training split the patients that are asked for."""
    fraction = data.patient_fraction if split == "train" else 1.0
    return ShardSplit(data.shards, split, data.text_policy, patient_fraction=fraction)


@dataclass(frozen=True)
class OnShards:
    """An objective, on its share's device, and the kinds of measures that judge it."""

    config: RunConfig
    objective: Objective
    tokenizer: ReportTokenizer
    kinds: tuple[type[Measure], ...]
    share: Share

    def parts(
        self,
        run: RunFolder,
        training: ShardSplit,
        validation: ShardSplit,
        count_flops: Callable[[], StepFlops] = StepFlops,
    ) -> Parts:
        """What this rank trains with; unreadable samples are named in the run's folder."""
        loader = TrainingLoader(
            training,
            self.tokenizer,
            self.config.data,
            self.share,
            seed=self.config.seed,
            micro_batches=self.config.training.accumulation_steps,
            quarantine=run.quarantine,
        )
        judged = self.validation(validation, run.quarantine)
        return Parts(self.objective, loader, judged, count_flops)

    def validation(self, split: ShardSplit, bad: JsonLines | None = None) -> Validation:
        """The measures over a split, on all ranks; `bad` are the lines of unreadable samples."""
        data = self.config.data
        loader = EvaluationLoader(split, self.tokenizer, data, self.share, quarantine=bad)
        context = Context(
            objective=self.objective,
            device=self.share.device,
            text_policy=data.text_policy,
            labels=data.labels,
            crop_fraction=data.augmentation.evaluation_crop_fraction,
            seed=self.config.seed,
            encode=self.tokenizer.encode,
        )
        return Validation(loader.batches, context, self.kinds)
