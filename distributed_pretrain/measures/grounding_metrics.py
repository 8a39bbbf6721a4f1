"""What phrase grounding is told by: the figures of a method, and those of maps to hold beside."""

from __future__ import annotations

from dataclasses import replace

from distributed_pretrain.measures.metric import Metric

GROUNDING_CNR = Metric("grounding_cnr", "grounding CNR", unit="number")
CNR_GAIN = Metric("grounding_cnr_gain", "CNR above another phrase's", unit="number")
POINTING = Metric("grounding_pointing", "pointing")
FOCAL_POINTING = Metric("grounding_pointing_focal", "pointing, focal findings")
FIXED_POINTING = Metric("grounding_pointing_fixed", "pointing, findings of fixed place")
BOX_AREA = Metric("grounding_box_area", "share of the image in boxes", better="low")
MS_CXR_CNR = Metric(
    "grounding_cnr_absolute", "CNR as MS-CXR has it, |.|, mean of phrases", unit="number"
)
MIOU = Metric("grounding_miou", "mIoU as BioViL has it, heat > 0.1 ... 0.5")
BORDER = Metric("grounding_border", "hottest on the border", better="low")
SAME_CELL_OTHER_PHRASE = Metric(
    "grounding_same_cell_other_phrase", "same cell for another phrase", better="low"
)
SAME_CELL_OTHER_IMAGE = Metric(
    "grounding_same_cell_other_image", "same cell in another image", better="low"
)
METHOD = (
    Metric("grounding_phrases", "phrases", unit="number"),
    BOX_AREA,
    POINTING,
    FOCAL_POINTING,
    FIXED_POINTING,
    GROUNDING_CNR,
    MS_CXR_CNR,
    Metric(
        "grounding_cnr_absolute_by_category",
        "CNR as MS-CXR has it, |.|, mean of categories",
        unit="number",
    ),
    MIOU,
    replace(MIOU, name=f"{MIOU.name}_by_category", title=f"{MIOU.title}, mean of categories"),
    Metric(
        "grounding_box_shown", "share of the area of all phrases' boxes that the model is shown"
    ),
    CNR_GAIN,
    BORDER,
    SAME_CELL_OTHER_PHRASE,
    SAME_CELL_OTHER_IMAGE,
)
# Maps of the training boxes, which see no image.
BLIND_MAPS = {
    "blind_all": "all training boxes",
    "blind_category": "boxes of the category",
    "blind_place": "boxes of category, side and zone",
}
BLIND_PHRASES = Metric("grounding_blind_phrases", "training phrases with boxes", unit="number")
# The boxes themselves on the grid of regions: what it can draw. No bound: a map may point better.
DRAWN_MAP = {"best": "the boxes drawn on the grid"}
MAPS = {**BLIND_MAPS, **DRAWN_MAP}


def of_map(name: str) -> tuple[Metric, Metric, Metric, Metric]:
    """Pointing, that on focal and on fixed findings, and the CNR of a map of `MAPS`."""
    title = MAPS[name]
    return (
        Metric(f"grounding_{name}_pointing", f"pointing, {title}"),
        Metric(f"grounding_{name}_pointing_focal", f"pointing, focal findings, {title}"),
        Metric(f"grounding_{name}_pointing_fixed", f"pointing, findings of fixed place, {title}"),
        Metric(f"grounding_{name}_cnr", f"CNR, {title}", unit="number"),
    )


DRAWN_POINTING = replace(of_map(*DRAWN_MAP)[0], title="pointing of the boxes on its grid")
# Those that come with the ends of an interval over studies.
BOUNDED = (
    POINTING,
    FOCAL_POINTING,
    CNR_GAIN,
    *(metric for name in BLIND_MAPS for metric in of_map(name)[:2]),
)
ENDS = ("low", "high")
CROPPED = "grounding_cropped"
GROUNDING_METRICS = (
    *METHOD,
    *(metric for name in MAPS for metric in of_map(name)),
    BLIND_PHRASES,
    *(
        Metric(f"{each.name}_{end}", f"{each.title}, {end} end of 95 %", each.unit)
        for each in BOUNDED
        for end in ENDS
    ),
)


def on_crops(metric: Metric) -> Metric:
    """The same on crops of the images."""
    name = metric.name.replace("grounding", CROPPED, 1)
    return replace(metric, name=name, title=f"{metric.title}, crops")


CROPPED_METRICS = tuple(map(on_crops, GROUNDING_METRICS))
