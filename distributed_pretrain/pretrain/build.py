"""`pretrain`: builds every part of a run from its config, then trains or goes on."""

from __future__ import annotations

import contextlib
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import torch
import torch._functorch.config

from data_shards.errors import InputError
from data_shards.records.manifest import MANIFEST_NAME
from data_shards.records.policies import select_sentences
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.report_tokenizer import NoReports, ReportTokenizer
from distributed_pretrain.data.shards import BadSampleError, ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer, train_wordpiece
from distributed_pretrain.measures.classification import auroc_name
from distributed_pretrain.measures.retrieval import RETRIEVAL_METRICS
from distributed_pretrain.methods.catalog import build_method
from distributed_pretrain.methods.objective import JointSpace, Method
from distributed_pretrain.models.ema import EmaTeacher
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.pretrain.validation import Validator
from distributed_pretrain.ranks import from_main, wait_for_all
from distributed_pretrain.run_folder.checkpoint import TrainingState, load_checkpoint
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.faults.interruption import InterruptionFlag
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.faults.skips import SkippedBatches
from distributed_pretrain.training.flops import StepFlops
from distributed_pretrain.training.loop import Trainer
from distributed_pretrain.training.recorder import Telemetry
from distributed_pretrain.training.settings import OptimizerConfig
from distributed_pretrain.training.step import Updater


def pretrain(config: PretrainConfig) -> bool:
    """Train to the end of `config`, from its run folder's newest intact checkpoint if any.

    True when the run is complete; False when a signal ended it after a checkpoint. Raises
    InputError for anything wrong with the config, the shards or the folder, before the
    first step, NonFiniteError during training, and PeerError when another rank is the cause.
    """
    engine = make_engine(config)
    run = RunFolder(config.run_folder)
    # Until the very end: launchers send SIGTERM to the rest when one rank has died, and what
    # these still do then is to say so and to end their save.
    with InterruptionFlag() as interruption, contextlib.ExitStack() as ending:
        ending.callback(engine.close)
        liveness = ending.enter_context(_liveness_of(config, engine))
        if engine.is_main:
            ending.enter_context(run.locked())
        trainer = build_trainer(config, engine, run, liveness)
        ending.callback(trainer.close)
        if trainer.state.finished:
            if engine.is_main:
                print(f"{config.run_folder}: already complete", file=sys.stderr)
            return True
        if engine.is_main:
            _announce(trainer)
        return trainer.fit(interruption)


def _liveness_of(config: PretrainConfig, engine: Engine) -> Liveness:
    return Liveness(
        rank=engine.rank,
        world_size=engine.world_size,
        timeout_seconds=config.training.rank_timeout_seconds,
        # Before the collective itself gives up: NCCL's watchdog would abort without a line.
        hang_timeout_seconds=0.9 * config.training.collective_timeout_seconds,
    )


def make_engine(config: PretrainConfig) -> Engine:
    """This process's part in the ranks that its launcher's variables describe."""
    if config.training.distributed.name == "ddp":
        return Engine(config.training)
    # DeepSpeed takes seconds to import, and not everybody has it.
    from distributed_pretrain.training.engine.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(config.training, global_batch=config.data.global_batch)


def build_tokenizer(config: PretrainConfig, folder: Path, training: ShardSplit) -> None:
    """Put the run's tokenizer into `folder`: the report encoder's own, or one trained here.

    A trained one is a WordPiece over the sentences of the training split. `folder` appears whole
    or not at all.
    """
    partial = folder.with_suffix(".partial")
    for remains in (partial, folder):
        shutil.rmtree(remains, ignore_errors=True)
    encoder = config.method.report_encoder
    if encoder is None:
        return
    if encoder.name == "pretrained":
        SentenceTokenizer.load(encoder.model).save(partial)
        partial.rename(folder)
        return
    texts: list[str] = []
    for position in range(len(training)):
        with contextlib.suppress(BadSampleError):  # training meets it again, and names it
            report = training.read(position).record.report
            texts.extend(select_sentences(report, config.data.text_policy))
    train_wordpiece(texts, partial, vocabulary_size=config.vocabulary_size)
    partial.rename(folder)


def load_tokenizer(config: PretrainConfig, folder: Path) -> ReportTokenizer:
    """The run's tokenizer; one that gives empty reports when the method reads none."""
    if config.method.report_encoder is None:
        return NoReports()
    return SentenceTokenizer.load(folder, max_tokens=config.data.max_tokens)


def check_against_method(config: PretrainConfig, method: Method) -> None:
    """Raise InputError for settings that only the built method can refuse."""
    if config.data.views != method.views:
        raise InputError(
            f"data.views={config.data.views}: method.name={config.method.name} as configured "
            f"learns from {method.views}: set data.views={method.views}"
        )
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
    known = {"total", *method.term_weights}
    if isinstance(method, JointSpace):
        known |= set(RETRIEVAL_METRICS)
    elif method.predicts_labels:
        known |= {"auroc", *map(auroc_name, config.data.labels)}
    if config.training.best_metric not in known:
        raise InputError(
            f"training.best_metric={config.training.best_metric!r} is not measured: "
            f"choose one of {', '.join(sorted(known))}"
        )


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


def build_trainer(
    config: PretrainConfig, engine: Engine, run: RunFolder, liveness: Liveness
) -> Trainer:
    """Every part of a run in this process, at its newest intact checkpoint or the beginning."""
    try:
        return _build_trainer(config, engine, run, liveness)
    except BaseException:
        if engine.is_main:
            run.discard()
        raise


def _build_trainer(
    config: PretrainConfig, engine: Engine, run: RunFolder, liveness: Liveness
) -> Trainer:
    config.check_ranks(engine.world_size)
    data = config.data
    split = ShardSplit.open(
        data.shards, "train", data.text_policy, patient_fraction=data.patient_fraction
    )
    validation_split = ShardSplit.open(data.shards, "validate", data.text_policy)
    if engine.is_main:
        run.prepare(config)
        if not (run.has_progress and run.tokenizer.exists()):
            build_tokenizer(config, run.tokenizer, split)
        run.set_damaged_checkpoints_aside()
    wait_for_all()

    tokenizer = load_tokenizer(config, run.tokenizer)
    torch.manual_seed(config.seed)
    method = build_method(
        config.method, vocabulary_size=tokenizer.vocabulary_size, classes=len(data.labels)
    )
    check_against_method(config, method)
    if config.training.channels_last:
        use_channels_last(method)
    method.to(engine.device)
    flops = StepFlops.of(
        method, image_size_px=data.image_size_px, views=data.views, classes=len(data.labels)
    )
    engine.prepare(method, build_optimizer(config.optimizer, method))
    # Rank 0 chooses for all: a shared folder may look older from another node.
    step = from_main((run.latest_step() if engine.is_main else None) or 0, engine.device)
    checkpoint = load_checkpoint(run.checkpoint_at(step)) if step else None
    if checkpoint is not None:
        engine.load_state(checkpoint.model, checkpoint.optimizer)
    if config.training.compile:
        # A backward that may overwrite what forward kept could not also be walked term by term.
        torch._functorch.config.donated_buffer = config.training.gradient_norms_every_steps is None
        engine.method.compile()

    manifest_sha256 = sha256((data.shards / MANIFEST_NAME).read_bytes()).hexdigest()
    state = TrainingState(manifest_sha256=manifest_sha256)
    if checkpoint is not None:
        state = checkpoint.state
        if state.manifest_sha256 != manifest_sha256:
            raise InputError(
                f"{data.shards}: not the shards that {run.path} was trained on so far: put those "
                "back, or choose another run_folder"
            )
    transform = DeviceTransform.of(data, split.manifest)
    loader = TrainingLoader(
        split,
        tokenizer,
        data,
        seed=config.seed,
        rank=engine.rank,
        world_size=engine.world_size,
        micro_batches=config.training.accumulation_steps,
        quarantine=run.quarantine_of(split, data.max_bad_fraction),
        pin_memory=engine.device.type == "cuda",
    )
    epoch_limit = config.training.epochs * loader.steps_per_epoch
    validation_loader = EvaluationLoader(
        validation_split,
        tokenizer,
        data,
        rank=engine.rank,
        world_size=engine.world_size,
        quarantine=run.quarantine_of(validation_split, data.max_bad_fraction),
    )
    skipped_batches = SkippedBatches(run.skipped)
    telemetry = None
    if engine.is_main:
        skipped_batches.cut_back(state.samples_consumed)
        telemetry = Telemetry(run.metrics, run.tensorboard, resume_step=state.step)
    return Trainer(
        config,
        engine=engine,
        run=run,
        loader=loader,
        updater=Updater(
            config,
            engine=engine,
            transform=transform,
            skipped_batches=skipped_batches,
            steps_per_epoch=loader.steps_per_epoch,
            total_steps=min(epoch_limit, config.training.max_steps or epoch_limit)
            if method.term_weights
            else 0,
        ),
        validator=Validator(
            validation_loader,
            transform,
            engine.device,
            engine.autocast,
            data.text_policy,
            labels=data.labels,
        ),
        state=state,
        telemetry=telemetry,
        flops=flops,
        liveness=liveness,
    )


def _announce(trainer: Trainer) -> None:
    engine = trainer.engine
    restarts = trainer.run.note_start(
        step=trainer.state.step,
        total_steps=trainer.total_steps,
        world_size=engine.world_size,
        device=engine.device.type,
    )
    if trainer.telemetry is not None:
        trainer.telemetry.note_restarts(trainer.state.step, restarts)
    million = sum(p.numel() for p in engine.parameters) / 1e6
    start = f"going on from step {trainer.state.step}" if trainer.state.step else "starting"
    print(
        f"{trainer.run.path}: {start}: {trainer.total_steps} steps of "
        f"{trainer.config.data.global_batch} pairs on {engine.world_size} x "
        f"{engine.device.type}, {million:.1f} M trained parameters\n"
        f"watch: tensorboard --logdir {trainer.run.tensorboard}",
        file=sys.stderr,
    )
