"""`pretrain`: a method, its shards and its measures, trained as any run is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from data_shards.command_line import DONE, GOES_ON
from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.loader import EvaluationLoader, Share, TrainingLoader
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import NoReports, ReportTokenizer, SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import build_tokenizer
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.catalog import VALIDATION
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.models.ema import EmaTeacher
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.ranks import wait_for_all
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.flops import StepFlops
from distributed_pretrain.training.run import Parts, train
from distributed_pretrain.training.validation import Validation


def run_pretrain(profile: Path, overrides: Sequence[str]) -> int:
    """The exit status of a start: done, or interrupted with a checkpoint saved."""
    return DONE if pretrain(load_profile(PretrainConfig, profile, overrides)) else GOES_ON


def pretrain(config: PretrainConfig) -> bool:
    """Train, or go on; see `train` for what is returned and raised."""
    return train(config, partial(build_parts, config))


def build_parts(config: PretrainConfig, engine: Engine, run: RunFolder) -> Parts:
    """The method, its loaders and its measures, in this process."""
    data = config.data
    training_split = ShardSplit(
        data.shards, "train", data.text_policy, patient_fraction=data.patient_fraction
    )
    validation_split = ShardSplit(data.shards, "validate", data.text_policy)
    encoder = config.method.report_encoder
    if engine.is_main and encoder and not (run.has_progress and run.tokenizer.exists()):
        build_tokenizer(
            run.tokenizer,
            training_split,
            partial(encoder.make_tokenizer, vocabulary_size=config.vocabulary_size),
        )
    wait_for_all()
    tokenizer = tokenizer_of(config, run)
    torch.manual_seed(config.seed)
    method = build_method(config, tokenizer).to(engine.device)
    share = Share(engine.rank, engine.world_size, engine.device)
    loader = TrainingLoader(
        training_split,
        tokenizer,
        data,
        share,
        seed=config.seed,
        micro_batches=config.training.accumulation_steps,
        quarantine=run.quarantine,
    )
    validation_loader = EvaluationLoader(
        validation_split, tokenizer, data, share, quarantine=run.quarantine
    )
    context = Context(
        objective=method,
        device=engine.device,
        text_policy=data.text_policy,
        labels=data.labels,
        crop_fraction=data.augmentation.evaluation_crop_fraction,
        seed=config.seed,
        encode=tokenizer.encode,
    )
    return Parts(
        objective=method,
        loader=loader,
        validation=Validation(validation_loader.batches, context, VALIDATION),
        count_flops=lambda: flops_of(method, config, engine.device),
    )


def tokenizer_of(config: PretrainConfig, run: RunFolder) -> ReportTokenizer:
    """The tokenizer that a run has; one that gives empty reports when none are read."""
    if config.method.report_encoder is None:
        return NoReports()
    return SentenceTokenizer.load(run.tokenizer, max_tokens=config.data.max_tokens)


def build_method(config: PretrainConfig, tokenizer: ReportTokenizer) -> Method:
    """The method on the CPU. Raises InputError for settings that only it can refuse."""
    sizes = Sizes(tokenizer.vocabulary_size, classes=len(config.data.labels))
    method = config.method.build(sizes)
    if method.max_tokens is not None and config.data.max_tokens > method.max_tokens:
        raise InputError(
            f"data.max_tokens={config.data.max_tokens}: the report encoder takes at most "
            f"{method.max_tokens} tokens: use that or less"
        )
    distributed = config.training.distributed
    cuts_weights = distributed.name == "deepspeed" and distributed.zero_stage == 3
    if cuts_weights and any(isinstance(each, EmaTeacher) for each in method.modules()):
        raise InputError(
            "training.distributed.zero_stage=3 cuts up the weights that the teacher of "
            f"method.name={config.method.name} averages: use zero_stage 2 or less, or "
            "training.distributed.name=ddp"
        )
    return method


def flops_of(method: Method, config: PretrainConfig, device: torch.device) -> StepFlops:
    """The operations of a step, for studies that have every image and label that is asked for."""

    def probe(*, rows: int, tokens: int, tokens_a_sentence: int) -> Batch:
        return full_batch(
            device,
            rows=rows,
            image_size_px=config.data.image_size_px,
            tokens=tokens,
            tokens_a_sentence=tokens_a_sentence,
            views=config.data.views,
            classes=len(config.data.labels),
        )

    return StepFlops.of(method, probe, max_tokens=method.max_tokens)
