"""`pretrain`: builds every part of a run from its config, then trains or goes on."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TypedDict

import torch

from data_shards.records.policies import select_sentences
from distributed_pretrain.checkpoint import TrainingState, load_checkpoint
from distributed_pretrain.config import PretrainConfig
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.shards import BadSampleError, ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer, train_wordpiece
from distributed_pretrain.methods.base import Method
from distributed_pretrain.methods.catalog import build_method
from distributed_pretrain.telemetry.telemetry import Telemetry
from distributed_pretrain.training.config import OptimizerConfig
from distributed_pretrain.training.engine import Engine
from distributed_pretrain.training.run_folder import RunFolder
from distributed_pretrain.training.trainer import Trainer
from distributed_pretrain.training.validation import Validator


def pretrain(config: PretrainConfig) -> bool:
    """Train to the end of `config`, from its run folder's newest intact checkpoint if any.

    True when the run is complete; False when a signal ended it after a checkpoint. Raises
    InputError for anything wrong with the config, the shards or the folder, before the
    first step, and NonFiniteLossError during training.
    """
    engine = Engine(precision=config.training.precision)
    try:
        return _pretrain(config, engine)
    finally:
        engine.close()


def build_tokenizer(config: PretrainConfig, folder: Path, training: ShardSplit) -> None:
    """Put the run's tokenizer into `folder`: the report encoder's own, or one trained here.

    A trained one is a WordPiece over the sentences of the training split.
    """
    encoder = config.method.report_encoder
    if encoder.name == "pretrained":
        SentenceTokenizer.load(encoder.model).save(folder)
        return
    texts: list[str] = []
    for position in range(len(training)):
        with contextlib.suppress(BadSampleError):  # training meets it again, and names it
            report = training.read(position).record.report
            texts.extend(select_sentences(report, config.data.text_policy))
    train_wordpiece(texts, folder, vocabulary_size=config.vocabulary_size)


def build_optimizer(config: OptimizerConfig, method: Method) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters."""
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        [p for p in method.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )


def use_channels_last(method: Method) -> None:
    """Lay convolution weights out channels last; feature maps follow them."""
    for parameter in method.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _pretrain(config: PretrainConfig, engine: Engine) -> bool:
    data, training = config.data, config.training
    split = ShardSplit.open(data.shards, "train", data.text_policy)
    validation_split = ShardSplit.open(data.shards, "validate", data.text_policy)
    run = RunFolder(config.run_folder)
    checkpoint = None
    if engine.is_main:
        run.prepare(config)
        if not run.tokenizer.exists():
            build_tokenizer(config, run.tokenizer, split)
        run.set_damaged_checkpoints_aside()
    engine.wait_for_all()
    latest = run.latest_checkpoint()
    tokenizer = SentenceTokenizer.load(run.tokenizer, max_tokens=data.max_tokens)

    torch.manual_seed(config.seed)
    method = build_method(config.method, vocabulary_size=tokenizer.vocabulary_size)
    if training.channels_last:
        use_channels_last(method)
    state = TrainingState()
    if latest is not None:
        checkpoint = load_checkpoint(latest)
        state = checkpoint.state
        method.load_state_dict(checkpoint.model)
    method.to(engine.device)
    optimizer = build_optimizer(config.optimizer, method)
    if checkpoint is not None:
        optimizer.load_state_dict(checkpoint.optimizer)
    if state.finished:
        if engine.is_main:
            print(f"{run.path}: already complete at step {state.step}", file=sys.stderr)
        return True
    if training.compile:
        method.compile()

    ranks: _Ranks = {"rank": engine.rank, "world_size": engine.world_size}
    loader = TrainingLoader(
        split,
        tokenizer,
        data,
        seed=config.seed,
        quarantine=run.quarantine_of(split, data.max_bad_fraction),
        pin_memory=engine.device.type == "cuda",
        **ranks,
    )
    validation_loader = EvaluationLoader(
        validation_split,
        tokenizer,
        data,
        quarantine=run.quarantine_of(validation_split, data.max_bad_fraction),
        **ranks,
    )
    transform = DeviceTransform(
        data.augmentation,
        image_size_px=data.image_size_px,
        pixel_mean=split.manifest.pixel_mean,
        pixel_std=split.manifest.pixel_std,
    )
    trainer = Trainer(
        config,
        engine=engine,
        run=run,
        method=method,
        optimizer=optimizer,
        loader=loader,
        transform=transform,
        validator=Validator(validation_loader, transform, engine, data.text_policy),
        state=state,
        telemetry=Telemetry(run.metrics, run.tensorboard, resume_step=state.step)
        if engine.is_main
        else None,
    )
    if engine.is_main:
        _announce(config, run, trainer)
    return trainer.fit()


class _Ranks(TypedDict):
    rank: int
    world_size: int


def _announce(config: PretrainConfig, run: RunFolder, trainer: Trainer) -> None:
    million = sum(p.numel() for p in trainer.parameters) / 1e6
    start = f"going on from step {trainer.state.step}" if trainer.state.step else "starting"
    print(
        f"{run.path}: {start}: {trainer.total_steps} steps of {config.data.global_batch} pairs on "
        f"{trainer.engine.world_size} x {trainer.engine.device.type}, "
        f"{million:.1f} M trained parameters\n"
        f"watch: tensorboard --logdir {run.tensorboard}",
        file=sys.stderr,
    )
