"""`pretrain`: a method, its shards and its measures, trained as any run is; and what it left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from data_shards.command_line import DONE, GOES_ON
from data_shards.errors import InputError, warn
from data_shards.files.json_lines import JsonLines
from data_shards.profiles import load_profile
from data_shards.records.study import Split
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.share import Share
from distributed_pretrain.data.subsets import chosen_studies, fraction_of
from distributed_pretrain.data.tokenization import NoReports, ReportTokenizer, SentenceTokenizer
from distributed_pretrain.data.tokenizer_training import build_tokenizer
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.measures.catalog import VALIDATION
from distributed_pretrain.methods.objective import Method, Objective
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.models.ema import EmaTeacher
from distributed_pretrain.models.image_encoder import receptive_field_px
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.ranks import wait_for_all
from distributed_pretrain.run_folder.checkpoint import load_weights
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.identity import (
    REMAKE,
    check_tokenizer,
    identity_of,
    note_tokenizer,
)
from distributed_pretrain.run_folder.intact import Owner
from distributed_pretrain.run_folder.step_folders import UNTRAINED
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.flops import StepFlops
from distributed_pretrain.training.memory.estimate import MemoryEstimate, estimate_memory
from distributed_pretrain.training.run import Parts, train
from distributed_pretrain.training.settings import RunConfig, TrainingConfig
from distributed_pretrain.training.validation import Validation

# [CLS] and [SEP].
_NO_REPORT = 2


def open_split(data: DataConfig, split: Split) -> ShardSplit:
    """A split of the shards: its patients (of training) and studies that are asked for."""
    of_patients = partial(
        ShardSplit,
        data.files(),
        split,
        data.text_policy,
        patient_fraction=data.patient_fraction if split == "train" else 1.0,
    )
    whole = of_patients()
    if fraction_of(data, split) == 1:
        return whole
    return of_patients(only=chosen_studies(whole, data))


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
        estimate: Callable[[TrainingConfig], MemoryEstimate] | None = None,
    ) -> Parts:
        """What this rank trains with; unreadable samples are named in the run's folder."""
        loader = self.training_loader(training, run.quarantine)
        judged = self.validation(self.evaluation_loader(validation, run.quarantine).batches)
        return Parts(self.objective, loader, judged, count_flops, estimate)

    def training_loader(self, split: ShardSplit, bad: JsonLines) -> TrainingLoader:
        """This rank's batches of training; `bad` are the lines of unreadable samples."""
        return TrainingLoader(
            split,
            self.tokenizer,
            self.config.data,
            self.share,
            seed=self.config.seed,
            micro_batches=self.config.training.ordered_parts(self.config.data.global_batch),
            quarantine=bad,
        )

    def evaluation_loader(
        self, split: ShardSplit, bad: JsonLines | None = None
    ) -> EvaluationLoader:
        """This rank's share of a split, in order; `bad` as above."""
        data = self.config.data
        return EvaluationLoader(split, self.tokenizer, data, self.share, quarantine=bad)

    def validation(self, batches: Callable[[], Iterable[Batch]]) -> Validation:
        """The measures over all of `batches`, on all ranks."""
        data = self.config.data
        context = Context(
            objective=self.objective,
            device=self.share.device,
            text_policy=data.text_policy,
            labels=data.labels,
            masks=data.masks,
            boxes=data.boxes,
            crop_fraction=data.augmentation.evaluation_crop_fraction,
            seed=self.config.seed,
            encode=self.tokenizer.encode,
        )
        return Validation(batches, context, self.kinds)


def run_pretrain(profile: Path, overrides: Sequence[str]) -> int:
    """The exit status of a start: done, or interrupted with a checkpoint saved."""
    return DONE if pretrain(load_profile(PretrainConfig, profile, overrides)) else GOES_ON


def pretrain(config: PretrainConfig) -> bool:
    """Train, or go on; see `train` for what is returned and raised."""
    return train(config, partial(build_parts, config))


def build_parts(config: PretrainConfig, engine: Engine, run: RunFolder) -> Parts:
    """The method, its loaders and its measures, in this process."""
    training, validation = open_split(config.data, "train"), open_split(config.data, "validate")
    encoder = config.method.report_encoder
    if engine.is_main and encoder and not (run.has_progress and run.tokenizer.exists()):
        if run.has_progress:
            warn(f"{run.tokenizer}: was missing, and is made again")
        make = partial(encoder.make_tokenizer, vocabulary_size=config.vocabulary_size)
        build_tokenizer(run.tokenizer, training, make)
        note_tokenizer(run)
    wait_for_all()
    tokenizer = _tokenizer_of(config, run)
    if engine.is_main and encoder:
        note_tokenizer(run)  # of a run that an earlier release began
    torch.manual_seed(config.seed)
    method = build_method(config, tokenizer).to(engine.device)
    if engine.is_main:
        _say_what_a_cell_sees(method, config.data.image_size_px)
        for line in filter(None, (training.told_left_out(), validation.told_left_out())):
            print(line, file=sys.stderr)
    share = Share(engine.rank, engine.world_size, engine.device)
    return OnShards(config, method, tokenizer, VALIDATION, share).parts(
        run,
        training,
        validation,
        lambda: flops_of(method, config, engine.device),
        lambda training: memory_of(
            method,
            config.model_copy(update={"training": training}),
            device=engine.device,
            ranks=engine.world_size,
        ),
    )


def _say_what_a_cell_sees(method: Method, image_size_px: int) -> None:
    like = next(method.image_encoder.parameters())
    state = torch.random.get_rng_state()
    method.eval()
    field = receptive_field_px(method.feature_map, image_size_px, like)
    method.train()
    torch.random.set_rng_state(state)
    print(f"a cell of the feature map sees {field} of {image_size_px} px", file=sys.stderr)


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
    probe = partial(full_studies(config), device)
    return StepFlops.of(method, probe, max_tokens=method.max_tokens)


def memory_of(
    method: Method, config: PretrainConfig, *, device: torch.device, ranks: int
) -> MemoryEstimate:
    """The memory of each device, for such studies with reports as long as they may be."""
    tokens = _NO_REPORT if method.max_tokens is None else config.data.max_tokens
    probe = full_studies(config)
    return estimate_memory(method, probe, config, device=device, ranks=ranks, tokens=tokens)


def full_studies(config: PretrainConfig) -> Callable[..., Batch]:
    """What makes a `full_batch` of a device, rows and tokens, with all that the profile reads."""
    data = config.data
    return partial(
        full_batch,
        image_size_px=data.image_size_px,
        views=data.views,
        classes=len(data.labels),
    )


@dataclass(frozen=True)
class TrainedMethod:
    """A method on the CPU, with the config and the tokenizer of its run."""

    config: PretrainConfig
    tokenizer: ReportTokenizer
    method: Method


def load_method(run_folder: Path, checkpoint: str) -> TrainedMethod:
    """The method of a run, by best, last, a step folder's name, or untrained (as the run began).

    Raises InputError for a folder without run or checkpoint.
    """
    run = RunFolder(run_folder)
    config = run.read_config(PretrainConfig)
    tokenizer = _tokenizer_of(config, run)
    torch.manual_seed(config.seed)
    # Whoever judges it, on ranks too, gets what one process would.
    judged = config.model_copy(update={"method": config.method.as_in_one_process()})
    method = build_method(judged, tokenizer)
    if run.checkpoint_name(checkpoint) != UNTRAINED:
        owner = Owner(config, identity_of(run))
        weights = load_weights(run.checkpoint(checkpoint), method.state_dict(), owner)
        method.load_state_dict(weights)
    return TrainedMethod(config, tokenizer, method)


def _tokenizer_of(config: PretrainConfig, run: RunFolder) -> ReportTokenizer:
    """The tokenizer that a run has; one that gives empty reports when none are read."""
    if config.method.report_encoder is None:
        return NoReports()
    check_tokenizer(run)
    try:
        return SentenceTokenizer.load(run.tokenizer, max_tokens=config.data.max_tokens)
    except InputError as error:
        # Nothing else can be wrong with what was loaded when the run began.
        what = "damaged" if (run.tokenizer / "tokenizer.json").exists() else "missing"
        raise InputError(f"{run.tokenizer / 'tokenizer.json'}: {what}: {REMAKE}") from error
