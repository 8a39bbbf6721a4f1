"""The card of an export: what it is, what it learnt from, what was measured, and its limits."""

from __future__ import annotations

from importlib.metadata import version

from data_shards.errors import InputError
from data_shards.records.manifest import read_manifest
from data_shards.remote.fetch import StoreError
from distributed_pretrain.handover.model import Model
from distributed_pretrain.measures.catalog import JUDGED_BY
from distributed_pretrain.measures.metric import read_figures
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import (
    BEST,
    LAST,
    UNTRAINED,
    named_by,
    step_of,
)

_LIMITS = """\
- For research. No medical device, and not evaluated for any clinical use.
- It has seen the images and reports named above and nothing else: other hospitals, machines, ages
  and findings may look different to it, and whoever is rare there is served worse.
- Heat maps say where an embedding fits a phrase. They are no segmentation and no explanation.
- Weights learnt from credentialed data are derived from it: read its data use agreement before
  you pass them on.
"""


def model_card(model: Model, run: RunFolder, checkpoint: str, *, to: str, usage: str) -> str:
    """Markdown with the front matter that the Hugging Face hub reads.

    Raises InputError for a checkpoint of no such name.
    """
    checkpoint = run.checkpoint_name(checkpoint)
    name = type(model.method).__name__
    source, licence = _data(model, run)
    parts = [
        "---",
        "library_name: " + ("transformers" if to == "transformers" else to),
        "pipeline_tag: image-feature-extraction",
        "license: other",
        f"license_name: {licence!r}",
        "tags: [chest x-ray, radiology, medical]",
        "---",
        "",
        f"# A chest X-ray encoder pre-trained with {name}",
        "",
        f"Made by radalign {version('radalign')} from {_trained(run, checkpoint)}.",
        "",
        "## How it is loaded",
        "",
        f"```python\n{usage}\n```",
        "",
        "## What goes in",
        "",
        *_input(model, to),
        "",
        "## What it learnt from",
        "",
        f"- Data: {source}; licence: {licence}.",
        f"- Images of {model.data.image_size_px} px, batches of {model.data.global_batch} studies.",
        *_settings(model),
        "",
        "## What was measured",
        "",
        *_figures(run, checkpoint),
        "",
        "## Limits",
        "",
        _LIMITS,
    ]
    return "\n".join(parts)


def _data(model: Model, run: RunFolder) -> tuple[str, str]:
    """The source and licence that the shards' manifest names."""
    try:
        manifest = read_manifest(model.data.files().manifest_folder())
    except (InputError, StoreError):
        return f"the shards of {run.path.name}, which are not here any more", "not known"
    studies = manifest.samples_by_split.get("train", 0)
    return f"{studies:,} training studies of {manifest.source}", manifest.licence


def _trained(run: RunFolder, checkpoint: str) -> str:
    """Which weights of the run they are."""
    if checkpoint == UNTRAINED:
        return "no step of a run: the weights that it begins with"
    step = step_of(run.checkpoint(checkpoint))
    return f"step {step:,} (`{checkpoint}`) of a run of {run.saved_step():,} steps"


def _input(model: Model, to: str) -> list[str]:
    stored, data = model.stored, model.data
    mean, std = data.mean_and_std((stored.pixel_mean, stored.pixel_std))
    channels = "one channel" if to in ("transformers", "onnx") else "three equal channels"
    crop = data.augmentation.evaluation_crop_fraction
    middle = "" if crop == 1 else f", of that the middle {crop:g} of its side"
    return [
        f"A frontal radiograph in grey, 0 black, in {channels}: padded with black to a square"
        f"{middle}, resized to {data.image_size_px} x {data.image_size_px} px, divided by 255, "
        f"less {mean:.4f}, divided by {std:.4f}."
    ]


def _settings(model: Model) -> list[str]:
    config = model.config
    encoder = config.method.image_encoder
    lines = [
        f"- Image encoder: {encoder.backbone}"
        + (f", width {encoder.width:g}" if encoder.width != 1 else "")
        + f", begun {'at random' if encoder.weights is None else f'from {encoder.weights}'}.",
    ]
    if (reports := config.method.report_encoder) is not None:
        what = getattr(reports, "model", None) or f"a new {getattr(reports, 'architecture', '')}"
        lines.append(f"- Report encoder: {what}; text policy `{config.data.text_policy}`.")
    return lines


def _names(run: RunFolder, checkpoint: str) -> set[str]:
    """All by which the same weights are evaluated: best and last may be one checkpoint."""
    if checkpoint == UNTRAINED:
        return {UNTRAINED}
    step = run.checkpoint(checkpoint).name
    links = {each: named_by(run.checkpoints / each) for each in (BEST, LAST)}
    return {step} | {each for each, named in links.items() if named and named.name == step}


def _figures(run: RunFolder, checkpoint: str) -> list[str]:
    """A table of the headlines of every evaluation of this checkpoint, or how to make one."""
    tables: list[str] = []
    paths = {
        path
        for name in _names(run, checkpoint)
        for these in (name, f"{name}_on_*")
        for path in run.path.glob(run.evaluation("*", these).name)
    }
    for path in sorted(paths):
        figures = read_figures(path)
        tables += [
            f"`{path.stem}`, {figures.get('samples', 0):,.0f} studies:",
            "",
            "| figure | value |",
            "|---|---|",
            *(
                f"| {each.title} | {each.show(figures[each.name])} |"
                for each in JUDGED_BY.values()
                if each.name in figures
            ),
            "",
        ]
    return tables or [
        "Nothing yet: `python -m distributed_pretrain evaluate RUN_FOLDER`, and export again."
    ]
