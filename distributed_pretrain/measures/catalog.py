"""The measures there are: those of validation in the loop, and those of an evaluation."""

from __future__ import annotations

from distributed_pretrain.measures.auroc import Auroc
from distributed_pretrain.measures.base import Measure
from distributed_pretrain.measures.grounding import Grounding
from distributed_pretrain.measures.grounding_crops import CroppedGrounding
from distributed_pretrain.measures.linear_auroc import LinearAuroc
from distributed_pretrain.measures.linear_dice import LinearDice
from distributed_pretrain.measures.loss_terms import LossTerms
from distributed_pretrain.measures.other_images import OtherImages
from distributed_pretrain.measures.region_maps import RegionMaps
from distributed_pretrain.measures.retrieval import Retrieval

VALIDATION: tuple[type[Measure], ...] = (
    LossTerms,
    OtherImages,
    Retrieval,
    Auroc,
    RegionMaps,
)
EVALUATION: tuple[type[Measure], ...] = (
    OtherImages,
    Retrieval,
    Grounding,
    CroppedGrounding,
    LinearAuroc,
    LinearDice,
)
