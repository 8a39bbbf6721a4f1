"""The measures there are: of validation in the loop, of an evaluation, of a downstream head."""

from __future__ import annotations

from distributed_pretrain.measures.attention_weights import AttentionWeights
from distributed_pretrain.measures.auroc import Auroc
from distributed_pretrain.measures.base import Measure
from distributed_pretrain.measures.detection import Detection
from distributed_pretrain.measures.embedding_map import EmbeddingMap
from distributed_pretrain.measures.embedding_spread import Spread
from distributed_pretrain.measures.grounding import Grounding
from distributed_pretrain.measures.grounding_crops import CroppedGrounding
from distributed_pretrain.measures.grounding_metrics import GROUNDING_METRICS
from distributed_pretrain.measures.linear_auroc import LINEAR_AUROC, LinearAuroc
from distributed_pretrain.measures.linear_dice import LINEAR_DICE, LinearDice
from distributed_pretrain.measures.loss_terms import LossTerms
from distributed_pretrain.measures.nearest_regions import NearestRegions
from distributed_pretrain.measures.other_images import OtherImages
from distributed_pretrain.measures.region_maps import RegionMaps
from distributed_pretrain.measures.region_similarity import RegionSimilarity
from distributed_pretrain.measures.retrieval import RECALL_AT_1, RECALL_AT_5, Retrieval
from distributed_pretrain.measures.segmentation import Segmentation
from distributed_pretrain.measures.zero_shot import ZeroShot

VALIDATION: tuple[type[Measure], ...] = (
    LossTerms,
    OtherImages,
    Retrieval,
    Auroc,
    RegionMaps,
)
DOWNSTREAM: tuple[type[Measure], ...] = (
    LossTerms,
    Auroc,
    Segmentation,
    Detection,
)
EVALUATION: tuple[type[Measure], ...] = (
    OtherImages,
    Retrieval,
    Grounding,
    CroppedGrounding,
    LinearAuroc,
    LinearDice,
    ZeroShot,
    Spread,
)
# Pictures of an evaluation, which take time and are asked for.
PICTURES: tuple[type[Measure], ...] = (
    AttentionWeights,
    RegionMaps,
    NearestRegions,
    RegionSimilarity,
    EmbeddingMap,
)
# What an evaluation says of a run first: in tables, cards and the bars of comparisons.
JUDGED_BY = {
    metric.name: metric
    for metric in (RECALL_AT_1, RECALL_AT_5, LINEAR_DICE, LINEAR_AUROC, *GROUNDING_METRICS)
}
