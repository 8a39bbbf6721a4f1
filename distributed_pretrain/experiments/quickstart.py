"""`quickstart`: the whole path on the phantom, and what training changed."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_shards.command_line import GOES_ON, split_dotted
from data_shards.files.atomic import write_text_atomically
from data_shards.profiles import load_profile, parse_overrides, validate
from distributed_pretrain.evaluation.evaluate import Evaluation, evaluate_run
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.experiments.pages.quickstart import (
    Curve,
    Grounding,
    QuickstartPage,
    Retrieval,
    format_table,
    write_page,
)
from distributed_pretrain.experiments.settings import QuickstartConfig
from distributed_pretrain.experiments.shards_command import build_shards
from distributed_pretrain.measures.grounding import Grounding as GroundingMeasure
from distributed_pretrain.measures.retrieval import Retrieval as RetrievalMeasure
from distributed_pretrain.measures.study_images import StudyImages
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder

SUMMARY = ("recall_at_1", "recall_at_5", "grounding_cnr", "linear_dice")
SHOWN_STUDIES = 4
SHOWN_PHRASES = 6
RETRIEVED = 3


def run_quickstart(overrides: Sequence[str]) -> int:
    """Build the phantom's shards, train, compare with the untrained encoder, write the page.

    Dotted overrides (`training.max_steps=50`) are the pre-training profile's. Every part goes on
    where an interrupted quickstart stopped.
    """
    own, training_overrides = split_dotted(overrides)
    config = validate(QuickstartConfig, parse_overrides(own), where="quickstart")
    started = time.monotonic()
    run = load_profile(PretrainConfig, config.profile, training_overrides)
    run = run.model_copy(update={"run_folder": config.output / "lovt"})
    _say("1/3 phantom studies -> shards")
    build_shards(config.shards_profile, run.data.shards)
    _say("2/3 pre-training LoVT")
    if not pretrain(run):
        return GOES_ON
    _say("3/3 the trained encoder against the untrained one")
    untrained, trained = (
        evaluate_run(run.run_folder, EvaluateConfig(checkpoint=checkpoint), more=(StudyImages,))
        for checkpoint in ("untrained", "best")
    )
    minutes = (time.monotonic() - started) / 60
    _write_results(config.output, run, untrained, trained, minutes)
    return 0


def _say(line: str) -> None:
    print(f"\n== {line}", file=sys.stderr, flush=True)


def _write_results(
    output: Path, run: PretrainConfig, untrained: Evaluation, trained: Evaluation, minutes: float
) -> None:
    figures = [{name: each.metrics[name] for name in SUMMARY} for each in (untrained, trained)]
    summary = dict(zip(("untrained", "trained"), figures, strict=True))
    write_text_atomically(output / "summary.json", json.dumps(summary, indent=1) + "\n")
    lines = RunFolder(run.run_folder).read_metrics()
    tensorboard = f"tensorboard --logdir {RunFolder(run.run_folder).tensorboard}"
    page = QuickstartPage(
        untrained=figures[0],
        trained=figures[1],
        loss_curves=_curves(lines, ("total", "global", "local_image", "local_report")),
        recall_curves=tuple(
            _curve(lines, "validate", f"recall_at_{k}", f"R@{k}") for k in (1, 5, 10)
        ),
        retrievals=_retrievals(trained),
        groundings=_groundings(untrained, trained),
        facts={
            "command": "make quickstart",
            "hardware": f"{_device()}, {os.cpu_count()} CPU cores, {platform.machine()}",
            "time": f"{minutes:.1f} minutes",
            "training": f"{lines[-1]['step']} steps of {run.data.global_batch} pairs, "
            f"seed {run.seed}",
            "held out": f"{trained.samples} studies of patients never trained on",
        },
        run_folder=str(run.run_folder),
        tensorboard_command=tensorboard,
    )
    write_page(output / "index.html", page)
    print(format_table(*figures))
    print(f"\n{minutes:.1f} minutes. Open {output / 'index.html'}\nCurves: {tensorboard}")


def _curves(lines: Sequence[dict[str, float | str]], names: Sequence[str]) -> tuple[Curve, ...]:
    return tuple(
        _curve(lines, split, name, f"{name} ({split})")
        for name in names
        for split in ("train", "validate")
    )


def _curve(lines: Sequence[dict[str, float | str]], split: str, metric: str, name: str) -> Curve:
    points = [line for line in lines if line["split"] == split]
    return Curve(
        name=name,
        steps=[int(line["step"]) for line in points],
        values=[float(line[metric]) for line in points],
    )


def _retrievals(trained: Evaluation) -> tuple[Retrieval, ...]:
    """The first studies, each with the distinct reports nearest to its image."""
    measure, pixels = trained.of(RetrievalMeasure), trained.of(StudyImages).pixels
    shown = []
    for sample in range(min(SHOWN_STUDIES, trained.samples)):
        ranked = measure.similarity[sample].argsort(descending=True, stable=True).tolist()
        distinct = list(dict.fromkeys(measure.reports[other] for other in ranked))[:RETRIEVED]
        own = measure.reports[sample]
        shown.append(
            Retrieval(
                image=_grey(pixels[sample]),
                own_report=" ".join(own),
                retrieved=tuple((" ".join(each), each == own) for each in distinct),
            )
        )
    return tuple(shown)


def _groundings(untrained: Evaluation, trained: Evaluation) -> tuple[Grounding, ...]:
    """Phrases spread evenly over the held-out ones, so that none are picked for their looks."""
    before, after = (each.of(GroundingMeasure).grounded for each in (untrained, trained))
    if before is None or after is None:
        return ()
    pixels = trained.of(StudyImages).pixels
    count = min(SHOWN_PHRASES, len(after.phrases))
    chosen = np.linspace(0, len(after.phrases) - 1, count).round().astype(int).tolist()
    return tuple(
        Grounding(
            image=_grey(pixels[after.samples[i]]),
            boxes=after.model_boxes[i],
            phrase=after.phrases[i],
            untrained_heat=before.heat[i].numpy(),
            trained_heat=after.heat[i].numpy(),
            untrained_cnr=before.contrast[i].item(),
            trained_cnr=after.contrast[i].item(),
        )
        for i in chosen
    )


def _grey(pixels: torch.Tensor) -> NDArray[np.uint8]:
    low, high = pixels.min(), pixels.max()
    stretched = (pixels - low) / (high - low).clamp_min(1e-6)
    grey: NDArray[np.uint8] = (255 * stretched).round().byte().numpy()
    return grey


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
