"""A trained method as Python has it: images and reports in, embeddings and heat maps out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from data_shards.errors import InputError
from data_shards.own_inputs import OwnImage, sentences_of
from data_shards.records.study import Report
from distributed_pretrain.batch import Batch, join_rows
from distributed_pretrain.data.geometry import region_map_on_pixels
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.tokenization import ReportTokenizer
from distributed_pretrain.handover.images import ImageInput, ImageReader, image_vectors, images_of
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextMethod,
    ReportEmbeddings,
)
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.intact import StoredImages

# Texts, the reports of a shard's studies, one or many; or what `read_reports` made of them.
Reports: TypeAlias = str | Report | Sequence[str | Report] | ReportEmbeddings

# Bounds the memory of a call.
_AT_A_TIME = 32


class Match(NamedTuple):
    """One of the reports that were given: its place among them, from 0, and how well it fits."""

    place: int
    similarity: float


@dataclass(frozen=True)
class Model:
    """A method with all it needs to read an image and a report; made by `load`.

    Images are paths (JPEG, PNG, TIFF, BMP, DICOM), PIL images, or arrays and tensors of one channel
    (height, width): uint8, uint16 or fractions, 0 black. Reports are texts of any layout, of which
    the run's text policy is read; a phrase is a report. One or a sequence of either: what comes
    back has a row for each, float32 on the CPU. Everything is as in `evaluate`: the middle square
    of the padded image, no augmentation, no gradient. Raises InputError, in one line, for an image
    or a report that cannot be read, and for reports where the method reads none.
    """

    config: PretrainConfig
    method: Method
    tokenizer: ReportTokenizer
    stored: StoredImages
    device: torch.device

    @property
    def data(self) -> DataConfig:
        """How images and reports are read."""
        return self.config.data

    @property
    def image_encoder(self) -> ImageEncoder:
        """The encoder, whose input is `pixels` and whose output its last feature map."""
        return self.method.image_encoder

    def pixels(self, images: ImageInput | Sequence[ImageInput]) -> Float[Tensor, "images 1 s s"]:
        """The input of the image encoder: `data.image_size_px` squares, normalised."""
        return torch.cat([batch.images.cpu() for batch in self._image_batches(images)])

    def feature_maps(
        self, images: ImageInput | Sequence[ImageInput]
    ) -> Float[Tensor, "images channels rows columns"]:
        """The last feature map of the image encoder."""
        return self._over(images, lambda batch: self.method.feature_map(batch.images))

    def embed_images(self, images: ImageInput | Sequence[ImageInput]) -> Float[Tensor, "images d"]:
        """Unit vectors: those that meet reports, or of a method without reports mean features."""
        return self._over(images, lambda batch: image_vectors(self.method, batch))

    def embed_reports(self, reports: Reports) -> Float[Tensor, "reports d"]:
        """Unit vectors of whole reports."""
        return normalize(self.read_reports(reports).report.float(), dim=1).cpu()

    def read_reports(self, reports: Reports) -> ReportEmbeddings:
        """All that images are compared with, on the model's device: read once, for many images."""
        method = reading_reports(self.method)
        if isinstance(reports, ReportEmbeddings):
            return reports
        many = [reports] if isinstance(reports, str | Report) else list(reports)
        if not many:
            raise InputError("no report was given")
        of_each = [sentences_of(each, self.data.text_policy) for each in many]
        return self._embedded(method, of_each)

    def similarity(
        self, images: ImageInput | Sequence[ImageInput], reports: Reports
    ) -> Float[Tensor, "images reports"]:
        """How well each image and each report fit, as retrieval ranks them.

        The cosine of their embeddings, or what the method has instead (LIMITR's reads regions).
        """
        with torch.no_grad():
            method = reading_reports(self.method)
            read = self.read_reports(reports)
            return method.similarity(self._images(images), read).float().cpu()

    def retrieve(
        self, images: ImageInput | Sequence[ImageInput], reports: Reports, *, k: int = 5
    ) -> list[list[Match]]:
        """For each image its `k` nearest of the reports, the nearest first; fewer if there are."""
        if k < 1:
            raise InputError(f"k={k}: ask for 1 or more of the reports")
        similarity = self.similarity(images, reports)
        best = similarity.topk(min(k, similarity.shape[1]), dim=1)
        return [
            [Match(*each) for each in zip(places, values, strict=True)]
            for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def ground(
        self, image: ImageInput, phrases: str | Sequence[str]
    ) -> Float[Tensor, "phrases height width"]:
        """How much each pixel of one image belongs to each phrase: `grounding_map`, bilinear.

        Of the image's own size. Compare values within a map only. NaN where the model sees nothing
        of the image, beyond the crop of an evaluation.
        """
        method, read = reading_reports(self.method), self.reader.read(image)
        phrases = [phrases] if isinstance(phrases, str) else phrases
        if not phrases:
            raise InputError("no phrase was given")
        with torch.no_grad():
            shown = method.embed_images(self.reader.batch([read], self.device))
            embedded = self._embedded(method, [[each] for each in phrases])
            images = join_rows([shown] * len(phrases))
            cells = method.grounding_map(embedded, images).float().cpu()
        width, height = read.original_size
        heat = region_map_on_pixels(cells, self.data.image_size_px)
        return self.reader.on_image(heat, height=height, width=width)

    def zero_shot(
        self,
        images: ImageInput | Sequence[ImageInput],
        prompts: Mapping[str, str | Sequence[str]],
    ) -> Float[Tensor, "images classes"]:
        """The cosine of each image to each class, in the order of `prompts`.

        A class is the mean of its prompts' unit vectors. The largest is the answer; one class
        against its absence ("No pleural effusion.") is two classes.
        """
        if not prompts:
            raise InputError("no class was given")
        classes = [
            normalize(self.embed_reports(each).mean(dim=0), dim=0) for each in prompts.values()
        ]
        return self.embed_images(images) @ torch.stack(classes).T

    @property
    def reader(self) -> ImageReader:
        """How images are read: as those of the run's shards were."""
        return ImageReader(self.data, self.stored)

    def _image_batches(self, images: ImageInput | Sequence[ImageInput]) -> Iterator[Batch]:
        many = images_of(images)
        reader = self.reader
        for start in range(0, len(many), _AT_A_TIME):
            read: list[OwnImage] = [reader.read(each) for each in many[start : start + _AT_A_TIME]]
            yield reader.batch(read, self.device)

    @torch.no_grad()
    def _over(
        self, images: ImageInput | Sequence[ImageInput], make: Callable[[Batch], Tensor]
    ) -> Tensor:
        return torch.cat([make(batch).float().cpu() for batch in self._image_batches(images)])

    @torch.no_grad()
    def _images(self, images: ImageInput | Sequence[ImageInput]) -> ImageEmbeddings:
        method = reading_reports(self.method)
        return join_rows([method.embed_images(each) for each in self._image_batches(images)])

    @torch.no_grad()
    def _embedded(
        self, method: ImageTextMethod, reports: Sequence[Sequence[str]]
    ) -> ReportEmbeddings:
        parts = []
        for start in range(0, len(reports), _AT_A_TIME):
            try:
                tokens = self.tokenizer.encode(reports[start : start + _AT_A_TIME])
            except ValueError as error:
                raise InputError(f"{error}: give words") from error
            parts.append(method.embed_reports(tokens.to(self.device)))
        return join_rows(parts)


def reading_reports(method: Method) -> ImageTextMethod:
    """The method itself. Raises InputError for one that reads no reports."""
    if isinstance(method, ImageTextMethod):
        return method
    raise InputError(
        f"{type(method).__name__} reads no reports: load a run of LoVT, LIMITR, GLoRIA, MGCA, "
        "ConVIRT or CLIP*"
    )
