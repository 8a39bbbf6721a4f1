"""The best, the median and the worst image of a judged split, drawn beside the truth."""

from __future__ import annotations

from collections.abc import Mapping

from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.downstream.head import Head
from distributed_pretrain.measures.marked_pictures import (
    Example,
    MarkedBoxes,
    Marks,
    examples_picture,
)
from distributed_pretrain.measures.pictures import displayed
from distributed_pretrain.methods.boxes import (
    BoxOutputs,
    BoxPredictor,
    Detections,
    truths_of,
)
from distributed_pretrain.methods.masks import MaskOutputs
from distributed_pretrain.methods.objective import Objective, Outputs
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.gallery import Shown, write_pictures
from distributed_pretrain.training.validation import evaluating

# Detections below are not drawn: a detector gives hundreds, and metrics sort them by confidence.
LEAST_CONFIDENCE = 0.2
MOST_BOXES = 10
_NOTE = (
    "The image that is predicted best, the one in the middle and the worst, with their score "
    "(Dice, or mAP of the image alone): what is marked above, what was found below."
)


def write_examples(
    head: Head, split: ShardSplit, chosen: Mapping[str, str], scores: Mapping[str, float]
) -> Shown:
    """Draw the images of these keys into the run's folder, and for TensorBoard.

    `chosen` are keys of the split, at least one, by what they are examples of, `scores` those of
    each key.
    """
    positions = {split.key(position): position for position in range(len(split))}
    batch = head.on_shards.evaluation_loader(split).batch_of(
        [positions[key] for key in chosen.values()]
    )
    with evaluating(head.objective):
        outputs = head.objective(batch)
    pixels, classes = displayed(batch.images), head.config.classes
    truth, found = _marks(head.objective, outputs)
    examples = [
        Example(image, f"{name}: {scores[key]:.2f} ({key})", marked, predicted)
        for (name, key), image, marked, predicted in zip(
            chosen.items(), pixels, truth, found, strict=True
        )
    ]
    run = RunFolder(head.config.run_folder)
    name = run.examples(split.split).stem
    shown = Shown(name, examples_picture(examples, classes), _NOTE)
    write_pictures(run, run.path, [shown])
    return shown


def _marks(objective: Objective, outputs: Outputs) -> tuple[list[Marks], list[Marks]]:
    """What is marked on each image, and what was found."""
    if isinstance(outputs, MaskOutputs):
        return list(outputs.masks.cpu().numpy()), list((outputs.logits >= 0).cpu().numpy())
    assert isinstance(outputs, BoxOutputs)
    assert isinstance(objective, BoxPredictor)
    truths = [
        MarkedBoxes(each.corners.numpy(), each.category.numpy())
        for each in truths_of(outputs.boxes)
    ]
    found = [each.by_confidence(most=MOST_BOXES) for each in objective.detect(outputs)]
    return list(truths), [sure_boxes(each) for each in found]


def sure_boxes(found: Detections) -> MarkedBoxes:
    """The detections of an image that are sure enough to be drawn."""
    sure = found.confidence >= LEAST_CONFIDENCE
    return MarkedBoxes(
        found.corners[sure].numpy(), found.category[sure].numpy(), found.confidence[sure].numpy()
    )
