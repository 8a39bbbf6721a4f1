"""`quickstart`: the whole path on the phantom, and what training changed."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from data_shards.command_line import DONE, GOES_ON, shell_line, split_dotted
from data_shards.errors import InputError
from data_shards.files.atomic import try_to_write, write_text_atomically
from data_shards.files.json_lines import Line
from data_shards.processes import available_cores
from data_shards.profiles import load_profile, parse_overrides, validate
from data_shards.remote.address import Address
from distributed_pretrain.evaluation.evaluate import Evaluation, evaluate_run
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.experiments.grid.pool import build_shards
from distributed_pretrain.experiments.pages import quickstart as pages
from distributed_pretrain.experiments.pages.charts import Chart, Curve
from distributed_pretrain.experiments.settings import QuickstartConfig
from distributed_pretrain.measures import retrieval
from distributed_pretrain.measures.grounding import Grounding
from distributed_pretrain.measures.loss_terms import LossTerms
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.study_images import StudyImages
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import BEST, UNTRAINED

SHOWN_STUDIES = 4
SHOWN_PHRASES = 6
RETRIEVED = 3


def run_quickstart(overrides: Sequence[str]) -> int:
    """Build the phantom's shards, train, compare with the untrained encoder, write the page.

    Dotted overrides (`training.max_steps=50`) are the pre-training profile's. Every part goes on
    where an interrupted quickstart stopped.
    """
    own, of_run = split_dotted(overrides)
    config = validate(QuickstartConfig, parse_overrides(own), where="quickstart")
    started = time.monotonic()
    of_run = [*of_run, f"run_folder={config.output / 'lovt'}"]
    run = load_profile(PretrainConfig, config.profile, of_run)
    if isinstance(run.data.shards, Address):
        raise InputError(
            f"quickstart: data.shards={run.data.shards}: it builds them: name a folder to build in"
        )
    try_to_write(config.output / "index.html")
    _say("1/3 phantom studies -> shards")
    build_shards(config.shards_profile, run.data.shards)
    _say("2/3 pre-training LoVT")
    if not pretrain(run):
        return GOES_ON
    _say("3/3 the trained encoder against the untrained one")
    untrained, trained = (
        evaluate_run(run.run_folder, EvaluateConfig(checkpoint=checkpoint), more=(StudyImages,))
        for checkpoint in (UNTRAINED, BEST)
    )
    minutes = (time.monotonic() - started) / 60
    page = _page(run, untrained, trained, minutes)
    summary = {"untrained": page.untrained, "trained": page.trained, "blind maps": page.blind}
    write_text_atomically(config.output / "summary.json", json.dumps(summary, indent=1) + "\n")
    pages.write_page(config.output / "index.html", page)
    print(pages.format_table(page))
    print(f"\n{minutes:.1f} minutes. Open {config.output / 'index.html'}")
    print(f"Curves: {page.tensorboard_command}")
    return DONE


def _say(line: str) -> None:
    print(f"\n== {line}", file=sys.stderr, flush=True)


def _page(
    run: PretrainConfig, untrained: Evaluation, trained: Evaluation, minutes: float
) -> pages.QuickstartPage:
    folder = RunFolder(run.run_folder)
    lines = folder.read_metrics()
    before, after = (
        {each.name: found[each.name] for each in pages.MEANINGS if each.name in found}
        for found in (untrained.metrics, trained.metrics)
    )
    blind = {
        of.name: tuple(trained.metrics[each.name] for each in maps if each.name in trained.metrics)
        for of, maps in pages.BLIND.items()
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return pages.QuickstartPage(
        untrained=before,
        trained=after,
        blind={name: values for name, values in blind.items() if values},
        charts=_charts(lines, LossTerms(trained.context).metrics),
        retrievals=_retrievals(trained),
        groundings=_groundings(trained),
        facts={
            "command": "make quickstart",
            "hardware": f"{device}, {available_cores()} CPU cores, {platform.machine()}",
            "time": f"{minutes:.1f} minutes",
            "training": f"{lines[-1]['step']} steps of {run.data.global_batch} pairs, "
            f"seed {run.seed}",
            "held out": f"{trained.samples} studies of patients never trained on",
        },
        run_folder=str(folder.path),
        tensorboard_command=shell_line("tensorboard", "--logdir", folder.tensorboard),
    )


def _charts(lines: Sequence[Line], terms: Sequence[Metric]) -> list[Chart]:
    """One chart a loss term, and one of all recalls."""
    losses = [
        Chart(
            term.title.replace("_", " "),
            term,
            tuple(_curve(lines, split, term.name, split) for split in ("train", "validate")),
        )
        for term in terms
    ]
    recalls = (retrieval.RECALL_AT_1, retrieval.RECALL_AT_5, retrieval.RECALL_AT_10)
    curves = tuple(_curve(lines, "validate", each.name, each.title) for each in recalls)
    return [*losses, Chart("recall", retrieval.RECALL_AT_5, curves)]


def _curve(lines: Sequence[Line], split: str, name: str, label: str) -> Curve:
    # A step whose loss was not finite has none.
    points = [line for line in lines if line["split"] == split and name in line]
    return Curve(label, [line["step"] for line in points], [line[name] for line in points])


def _retrievals(trained: Evaluation) -> list[pages.Retrieval]:
    """The first studies, each with the distinct reports nearest to its image."""
    measure, pixels = trained.of(retrieval.Retrieval), trained.of(StudyImages).pixels
    shown = []
    for sample in range(min(SHOWN_STUDIES, trained.samples)):
        ranked = measure.similarity[sample].argsort(descending=True, stable=True).tolist()
        distinct = list(dict.fromkeys(measure.reports[other] for other in ranked))[:RETRIEVED]
        own = measure.reports[sample]
        found = tuple((" ".join(each), each == own) for each in distinct)
        shown.append(pages.Retrieval(_stretched(pixels[sample]), " ".join(own), found))
    return shown


def _groundings(trained: Evaluation) -> list[pages.Grounding]:
    """Phrases spread evenly over the held-out ones, so that none are picked for their looks."""
    after = trained.of(Grounding).grounded
    if after is None:
        return []
    pixels = trained.of(StudyImages).pixels
    count = min(SHOWN_PHRASES, len(after.phrases))
    chosen = np.linspace(0, len(after.phrases) - 1, count).round().astype(int).tolist()
    return [
        pages.Grounding(
            image=_stretched(pixels[phrase.sample]),
            boxes=tuple(map(phrase.square.box, phrase.boxes)),
            phrase=phrase.text,
            heat=after.heat[i].numpy(),
            hit=bool(after.hits[i]),
            other_phrase=after.other_phrases[i],
            other_heat=after.other_heat[i].numpy(),
        )
        for i, phrase in ((i, after.phrases[i]) for i in chosen)
    ]


def _stretched(pixels: Float[Tensor, "size size"]) -> Float[ndarray, "size size"]:
    """Normalised pixels on [0, 1], from the darkest to the brightest."""
    low, high = pixels.min(), pixels.max()
    return ((pixels - low) / (high - low).clamp_min(1e-6)).numpy()
