"""Everything about input that a profile can set: order, reading, text and augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from data_shards.profiles import FREE, Config
from data_shards.records.policies import TextPolicy
from data_shards.remote.settings import CacheConfig
from data_shards.remote.shards import Reader, ShardFiles, Shards, shard_files

Views = Literal["frontal", "frontal_lateral", "two_augmentations"]
Sentences = Literal["all", "one"]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"a range is (smallest, largest), not {list(bounds)}")
    return bounds


def _odd(kernel_px: int) -> int:
    if kernel_px % 2 == 0:
        raise ValueError("a blur kernel has a middle pixel, so its size is odd")
    return kernel_px


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice")
    return names


Names = Annotated[tuple[str, ...], AfterValidator(_distinct)]
Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
PositiveRange = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ascending)
]
Fraction = Annotated[float, Field(ge=0, le=1)]
# More than half of a padded square always shows some of the image.
CropFraction = Annotated[float, Field(gt=0.5, le=1)]


class AugmentationConfig(Config):
    """LoVT's image augmentation, in the order it is applied; every operation has a switch.

    `crop` is `random_resized` (`crop_area_fraction` and `crop_aspect_ratio` of the image),
    `padded_crop` (a square of `padded_crop_fraction` of the padded square's side, anywhere in it:
    LIMITR's 224 of 256) or `none` (as in evaluation). Evaluation shows the middle
    `evaluation_crop_fraction` of the padded square's side. What is shown is resized once, from
    the stored pixels, where LIMITR goes by way of 256 px.

    The flip does not touch the report: "left" and "right" keep their words, which is what the
    authors do and what `horizontal_flip: false` avoids. The views of a study are flipped together.
    """

    enabled: bool = True
    crop: Literal["random_resized", "padded_crop", "none"] = "random_resized"
    crop_area_fraction: PositiveRange = (0.6, 1.0)
    crop_aspect_ratio: PositiveRange = (3 / 4, 4 / 3)
    padded_crop_fraction: CropFraction = 224 / 256
    evaluation_crop_fraction: CropFraction = 1.0
    horizontal_flip: bool = True
    flip_probability: Fraction = 0.5
    affine: bool = True
    rotation_degrees: Range = (-20.0, 20.0)
    translation_fraction: Fraction = 0.1
    scale: PositiveRange = (0.95, 1.05)
    brightness_contrast: bool = True
    brightness: PositiveRange = (0.6, 1.4)
    contrast: PositiveRange = (0.6, 1.4)
    gaussian_blur: bool = True
    blur_kernel_px: Annotated[int, Field(ge=3), AfterValidator(_odd)] = 23
    blur_sigma_px: PositiveRange = (0.1, 3.0)


class DataConfig(Config):
    """The data path from shards to batches.

    `shards` is a folder, or an address of one in a store (s3://, gs://, https://, http://), whose
    files come to `cache` as they are read, and in training `prefetch_shards` ahead of the order, as
    far as that has room. `reader: ffcv` reads the same samples from the betons
    that `python -m data_shards beton` wrote into the folder, and needs no tars.

    `views`: what of a study's images a batch has. `frontal_lateral` adds a lateral view where
    there is one; `two_augmentations` a second augmentation of the same image. Training draws
    among a study's frontal (lateral) images, evaluation takes the first by id. In evaluation the
    second augmentation is drawn too, the same each time, since without it there is no loss to
    validate; images themselves are not augmented.

    `sentences: one` trains on one random sentence of the report. Evaluation always reads whole
    reports, as ConVIRT, CLIP*, GLoRIA and LoVT's ablation do.

    `normalisation`: pixels in [0, 1] less the mean and by the standard deviation of the training
    split, or (`half`) 0.5 and 0.5. `labels` are names of the shards' labels to deliver: those not
    mentioned are `unmentioned`, and uncertain ones unknown too, or present or absent where they are
    named in `uncertain_present` or `uncertain_absent`. `masks` and `boxes` are categories of what
    is drawn on the first frontal image by id, which is then the one shown. `masks_from: boxes`
    fills the boxes of a category for its mask. Neither is augmented.

    `fraction` trains on that share of the training studies: a sample by `fraction_seed` in which
    labels, masks and boxes that are delivered are as frequent as in all, and which holds those of
    every smaller fraction. `validate_fraction` is that of the validation split, by the same seed.

    `patient_fraction` trains on the studies of that share of the training patients (the papers'
    30 %), chosen by their ids, so that every seed and method gets the same.

    `loader_processes`: by how many processes of their own training's batches are made, in turns, a
    rank (None: 1 for a GPU, else 0: by threads of the rank's). They share `decode_threads`, at
    least one each; by default those are the rank's cores, but no more than 16 a process.

    `global_batch` counts studies over all ranks. `max_bad_fraction` is the share of a split that
    may be unreadable before the run stops. `sentence_swap_probability` is p of LoVT's
    Geometric(p) number of swaps, counted from 0.
    """

    former_names: ClassVar[Mapping[str, str | None]] = {
        "shuffle_window_shards": "shuffle_buffer_shards",
        "loader_process": None,
    }

    shards: Annotated[Shards, FREE]
    cache: Annotated[CacheConfig, FREE] = CacheConfig()
    reader: Annotated[Reader, FREE] = "tar"
    text_policy: TextPolicy = "lovt"
    views: Views = "frontal"
    sentences: Sentences = "all"
    labels: Names = ()
    unmentioned: Literal["unknown", "absent"] = "unknown"
    uncertain_present: Names = ()
    uncertain_absent: Names = ()
    masks: Names = ()
    masks_from: Literal["masks", "boxes"] = "masks"
    boxes: Names = ()
    image_size_px: int = Field(default=224, ge=32)
    normalisation: Literal["dataset", "half"] = "dataset"
    fraction: float = Field(default=1.0, gt=0, le=1)
    validate_fraction: float = Field(default=1.0, gt=0, le=1)
    fraction_seed: int = Field(default=0, ge=0)
    patient_fraction: float = Field(default=1.0, gt=0, le=1)
    global_batch: int = Field(default=512, ge=2)
    shuffle_buffer_shards: int = Field(default=16, ge=1)
    decode_threads: Annotated[int | None, FREE] = Field(default=None, ge=1)
    prefetch_batches: Annotated[int, FREE] = Field(default=3, ge=1)
    prefetch_shards: Annotated[int, FREE] = Field(default=16, ge=0)
    loader_processes: Annotated[int | None, FREE] = Field(default=None, ge=0)
    max_tokens: int = Field(default=512, ge=8)
    sentence_swaps: bool = True
    sentence_swap_probability: float = Field(default=0.4, gt=0, le=1)
    max_bad_fraction: Fraction = 0.01
    augmentation: AugmentationConfig = AugmentationConfig()

    def mean_and_std(self, of_shards: tuple[float, float]) -> tuple[float, float]:
        """What pixels are normalised by, of shards with this mean and deviation."""
        return of_shards if self.normalisation == "dataset" else (0.5, 0.5)

    def files(self, shards: Shards | None = None) -> ShardFiles:
        """Where the files of the shards lie, or those of other `shards`.

        Raises InputError and StoreError for a store that does not give them.
        """
        there = self.shards if shards is None else shards
        return shard_files(there, self.cache, reader=self.reader)

    @model_validator(mode="after")
    def _two_views_differ(self) -> Self:
        if self.views == "two_augmentations" and not self.augmentation.enabled:
            raise ValueError(
                "views: two_augmentations needs augmentation.enabled=true: without it both views "
                "are the same"
            )
        return self

    @model_validator(mode="after")
    def _uncertain_labels_are_one_thing(self) -> Self:
        if both := set(self.uncertain_present) & set(self.uncertain_absent):
            raise ValueError(
                f"{min(both)!r}: in uncertain_present and in uncertain_absent: keep one"
            )
        return self

    @model_validator(mode="after")
    def _what_is_drawn_stays(self) -> Self:
        if self.draws and self.augmentation.enabled:
            raise ValueError(
                "masks and boxes are not moved with an augmented image: set "
                "augmentation.enabled=false"
            )
        return self

    @property
    def draws(self) -> bool:
        """Whether anything is wanted that is drawn on an image."""
        return bool(self.masks or self.boxes)


@dataclass(frozen=True)
class Reads:
    """What an objective reads of a study: defaults of the fields of `data` with these names.

    A profile may differ in all but `views`, without which there is no loss.
    """

    views: Views = "frontal"
    text_policy: TextPolicy = "lovt"
    sentences: Sentences = "all"
    sentence_swaps: bool = True
    max_tokens: int = 512

    def fill(self, data: dict[str, Any]) -> dict[str, Any]:
        """The values of `data` with what they leave open."""
        return {**asdict(self), **data}
