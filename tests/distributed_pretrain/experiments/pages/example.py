"""A quickstart's page with some of everything, drawn by code."""

from __future__ import annotations

import numpy as np

from distributed_pretrain.experiments.pages.charts import Chart, Curve
from distributed_pretrain.experiments.pages.quickstart import Grounding, QuickstartPage, Retrieval
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.retrieval import RECALL_AT_5

SIZE_PX = 48
TERM = Metric("total", "total", unit="number", better="low")
UNTRAINED = {
    "recall_at_1": 0.005,
    "recall_at_5": 0.0275,
    "grounding_pointing": 0.101,
    "grounding_cnr_gain": -0.153,
    "linear_dice": 0.211,
}
TRAINED = {
    "recall_at_1": 0.072,
    "recall_at_5": 0.2425,
    "grounding_pointing": 0.61,
    "grounding_cnr_gain": 0.713,
    "linear_dice": 0.3,
}


def example() -> QuickstartPage:
    generator = np.random.default_rng(0)
    image = generator.random((SIZE_PX, SIZE_PX), np.float32)
    heat = generator.standard_normal((SIZE_PX, SIZE_PX)).astype(np.float32)
    steps = range(0, 100, 10)
    falling = [9 / (1 + step) for step in steps]
    both = tuple(Curve(split, steps, falling) for split in ("train", "validate"))
    rising = Curve("R@5", steps, [step / 300 for step in steps])
    return QuickstartPage(
        untrained=UNTRAINED,
        trained=TRAINED,
        blind={"grounding_pointing": (0.217, 0.435)},
        charts=(
            *(Chart(term, TERM, both) for term in ("total", "local image")),
            Chart("recall", RECALL_AT_5, (rising,)),
        ),
        retrievals=(
            Retrieval(image, "Own <script>alert(1)</script> & more", (("Other", False),)),
            Retrieval(image, "Clear", (("Clear", True), ("Effusion " * 60, False))),
        ),
        groundings=(
            Grounding(
                image,
                ((4.0, 6.5, 10, 8), (1, 2, 3, 4)),
                "a <b>nodule",
                heat,
                hit=True,
                other_phrase="edema",
                other_heat=heat,
            ),
            Grounding(image, (), "flat", 0 * heat, False, "", 0 * heat),
        ),
        facts={"command": "make quickstart", "hardware": "2 cores", "time": "5.2 minutes"},
        run_folder="runs/" + "a_very_long_folder_name_without_spaces" * 3,
        tensorboard_command="tensorboard --logdir runs/quickstart/lovt/tensorboard",
    )
