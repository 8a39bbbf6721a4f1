"""What is drawn on the image that is shown: its masks and boxes, on the square a model sees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import Boxes
from distributed_pretrain.data.geometry import ModelSquare, evaluated_image
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit, check_known
from distributed_pretrain.data.stored_images import decode_stored


@dataclass(frozen=True)
class Drawn:
    """A mask for each category of `data.masks`, and the boxes of those of `data.boxes`.

    A box is left, top, right, bottom and the number of its category.
    """

    masks: Bool[Tensor, "categories size size"]
    boxes: tuple[tuple[float, float, float, float, int], ...]


def read_drawn(record: StudyRecord, config: DataConfig, read: Callable[[str], bytes]) -> Drawn:
    """What is drawn on a study's first frontal image; `read` gives a stored member.

    Raises ValueError, which names it, for a mask that cannot be decoded or has another size than
    its image.
    """
    shown = evaluated_image(record)
    image = record.images[shown]
    fraction = config.augmentation.evaluation_crop_fraction
    square = ModelSquare(image, config.image_size_px, fraction)
    nothing = torch.zeros(image.height, image.width, dtype=torch.bool)
    if config.masks_from == "boxes":
        found = {category: filled_boxes(record, category) for category in config.masks}
    else:
        found = stored_masks(record, read, config.masks)
    masks = [square.mask(found.get(category, nothing)) for category in config.masks]
    size = config.image_size_px
    boxes = []
    for box in record.boxes:
        if box.image == shown and box.category in config.boxes:
            x, y, width, height = square.box(box)
            boxes.append((x, y, x + width, y + height, config.boxes.index(box.category)))
    return Drawn(
        torch.stack(masks) if masks else torch.zeros(0, size, size, dtype=torch.bool), tuple(boxes)
    )


def stored_masks(
    record: StudyRecord, read: Callable[[str], bytes], categories: Collection[str] | None = None
) -> dict[str, Tensor]:
    """By category (None: all there are), where the masks of the shown image are not zero.

    In the image's pixels, (height, width), bool; a union where there are several. Raises
    ValueError as `read_drawn`.
    """
    shown = evaluated_image(record)
    image = record.images[shown]
    found: dict[str, Tensor] = {}
    for mask in record.masks:
        if mask.image != shown or (categories is not None and mask.category not in categories):
            continue
        payload = read(mask.member)
        try:
            pixels = decode_stored(payload, width=image.width, height=image.height) > 0
        except ValueError as error:
            raise ValueError(f"{mask.member}: cannot be decoded ({error})") from error
        found[mask.category] = found.get(mask.category, torch.zeros_like(pixels)) | pixels
    return found


def check_drawn(split: ShardSplit, config: DataConfig) -> None:
    """Raises InputError unless the split has all masks and boxes that are wanted.

    To be judged on, one of them is enough: few images may have none of what is rare.
    """
    boxes, masks = config.boxes, config.masks
    if config.masks_from == "boxes":
        boxes, masks = (*boxes, *masks), ()
    judged = split.split != "train"
    check_known(
        split,
        masks,
        "masks",
        lambda record: {each.category for each in record.masks},
        any_is_enough=judged,
    )
    check_known(
        split,
        boxes,
        "boxes",
        lambda record: {each.category for each in record.boxes},
        any_is_enough=judged,
    )


def filled_boxes(record: StudyRecord, category: str) -> Bool[Tensor, "height width"]:
    """The union of a category's boxes on the shown image, in its pixels, their corners rounded."""
    shown = evaluated_image(record)
    image = record.images[shown]
    filled = torch.zeros(image.height, image.width, dtype=torch.bool)
    for box in record.boxes:
        if box.image == shown and box.category == category:
            rows = slice(max(0, round(box.y)), max(0, round(box.y + box.height)))
            columns = slice(max(0, round(box.x)), max(0, round(box.x + box.width)))
            filled[rows, columns] = True
    return filled


def stack_boxes(drawn: Sequence[Drawn]) -> Boxes:
    """The boxes of some images, at least one place each."""
    most = max(1, *(len(each.boxes) for each in drawn))
    values = torch.zeros(len(drawn), most, 5)
    present = torch.zeros(len(drawn), most, dtype=torch.bool)
    for row, each in enumerate(drawn):
        if each.boxes:
            values[row, : len(each.boxes)] = torch.tensor(each.boxes)
            present[row, : len(each.boxes)] = True
    return Boxes(values[..., :4].contiguous(), values[..., 4].long(), present)
