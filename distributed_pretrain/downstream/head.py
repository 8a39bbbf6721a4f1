"""A head on its encoder, made to be trained or judged, with its features kept if it may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from data_shards.errors import InputError
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.order import GlobalOrder
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.share import Share
from distributed_pretrain.data.tokenization import NoReports
from distributed_pretrain.downstream.encoders import load_encoder
from distributed_pretrain.downstream.features import (
    Autocast,
    FeatureStore,
    KeptBatches,
    KeptSplit,
)
from distributed_pretrain.downstream.protocols.base import HeadSizes, LocalizedConfig
from distributed_pretrain.downstream.settings import DownstreamConfig
from distributed_pretrain.measures.catalog import DOWNSTREAM
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.pretrain.build import OnShards
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.run import Parts
from distributed_pretrain.training.validation import Validation


@dataclass(frozen=True)
class Head:
    """The objective of a run, on its share's device."""

    config: DownstreamConfig
    objective: Objective
    on_shards: OnShards
    store: FeatureStore

    @classmethod
    def of(cls, config: DownstreamConfig, share: Share, store: FeatureStore) -> Head:
        """The head as it begins, by its seed. Raises InputError where it does not fit."""
        encoder = load_encoder(config.encoder)
        torch.manual_seed(config.seed)
        sizes = HeadSizes(len(config.classes), config.data.image_size_px)
        objective = config.protocol.build(encoder, sizes).to(share.device)
        on_shards = OnShards(config, objective, NoReports(), DOWNSTREAM, share)
        return cls(config, objective, on_shards, store)

    def parts(
        self, run: RunFolder, training: ShardSplit, validation: ShardSplit, autocast: Autocast
    ) -> Parts:
        """What the run trains with. Raises InputError where a warm-up takes all of it."""
        validation_loader = self.on_shards.evaluation_loader(validation, run.quarantine)
        judged = self._validation(validation_loader, autocast)
        whole = self.on_shards.evaluation_loader(training, run.quarantine)
        kept = self._kept(whole, autocast)
        if kept is None:
            loader = self.on_shards.training_loader(training, run.quarantine)
            self._refuse_endless_warm_up(loader.order.steps_per_epoch)
            return Parts(self.objective, loader, judged)
        data = self.config.data
        order = GlobalOrder(
            training.shard_sizes, data.global_batch, self.config.seed, data.shuffle_buffer_shards
        )
        batches = KeptBatches(kept, order, self.on_shards.share.device)
        return Parts(self.objective, batches, judged)

    def validation(self, split: ShardSplit, autocast: Autocast = nullcontext) -> Validation:
        """What judges the head on a split."""
        return self._validation(self.on_shards.evaluation_loader(split), autocast)

    def _refuse_endless_warm_up(self, steps_per_epoch: int) -> None:
        protocol = self.config.protocol
        steps = self.config.training.total_steps(steps_per_epoch)
        if not (isinstance(protocol, LocalizedConfig) and protocol.warms_up):
            return
        if protocol.warmup_steps >= steps:
            raise InputError(
                f"protocol.warmup_steps={protocol.warmup_steps}: the run has {steps} steps, so "
                "that the encoder would never be trained: give fewer of them, or train longer"
            )

    def _validation(self, loader: EvaluationLoader, autocast: Autocast) -> Validation:
        kept = self._kept(loader, autocast)
        batches: Callable[[], Iterable[Batch]] = loader.batches
        if kept is not None:
            device = self.on_shards.share.device
            batches = partial(kept.in_order, self.config.data.global_batch, device)
        return self.on_shards.validation(batches)

    def _kept(self, loader: EvaluationLoader, autocast: Autocast) -> KeptSplit | None:
        """The features of a split; None unless the encoder is frozen and sees what it always sees.

        One process keeps them: several have each a share of every batch, of other images each time.
        """
        config = self.config
        wanted = config.features.keep and config.protocol.is_frozen
        if not wanted or config.data.augmentation.enabled or self.on_shards.share.world_size > 1:
            return None
        return self.store.of(loader, self.objective, autocast)
