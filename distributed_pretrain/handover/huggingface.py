"""A method as a model of transformers: its config, its weights, and what makes pixels of images.

Importing this makes the Auto classes know them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor

from data_shards.errors import InputError
from data_shards.profiles import validate
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.handover.images import (
    ImageInput,
    ImageReader,
    image_vectors,
    images_of,
    without_reports,
)
from distributed_pretrain.handover.model import Model
from distributed_pretrain.methods.encoders import (
    DescribedReportEncoderConfig,
    PretrainedReportEncoderConfig,
)
from distributed_pretrain.methods.image_text import ImageTextMethod
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.intact import StoredImages


class RadalignConfig(PreTrainedConfig):
    """`profile` is the run's, without its starting weights; the rest is what it was built for."""

    model_type = "radalign"

    def __init__(
        self,
        profile: dict[str, Any] | None = None,
        vocabulary: int = 0,
        classes: int = 0,
        stored_images: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.profile = profile or {}
        self.vocabulary, self.classes = vocabulary, classes
        self.stored_images = stored_images or {}
        super().__init__(**kwargs)

    @classmethod
    def of(cls, model: Model) -> Self:
        """That of a model; it names no file of this machine."""
        config, method = model.config, model.config.method
        changes: dict[str, Any] = {
            "image_encoder": method.image_encoder.model_copy(update={"weights": None})
        }
        if isinstance(method.report_encoder, PretrainedReportEncoderConfig):
            assert isinstance(model.method, ImageTextMethod)
            described = model.method.report_encoder.bert.config.to_dict()
            described.pop("_name_or_path", None)
            changes["report_encoder"] = DescribedReportEncoderConfig(config=described)
        plain = config.model_copy(update={"method": method.model_copy(update=changes)})
        profile = plain.model_dump(mode="json", include={"method", "data", "vocabulary_size"})
        profile["data"]["shards"] = "shards"
        return cls(
            profile=profile,
            vocabulary=model.tokenizer.vocabulary_size,
            classes=len(config.data.labels),
            stored_images=asdict(model.stored),
        )

    def settings(self) -> PretrainConfig:
        """The profile. Raises InputError for one that this release does not know."""
        return validate(
            PretrainConfig, self.profile | {"run_folder": "exported"}, where="config.json"
        )

    def stored(self) -> StoredImages:
        """How the images of the run's shards were."""
        return StoredImages(**self.stored_images)


class RadalignModel(PreTrainedModel):
    """A method of this package, by `AutoModel.from_pretrained`; in evaluation mode."""

    config_class = RadalignConfig
    config: RadalignConfig
    base_model_prefix = "method"
    main_input_name = "pixel_values"

    def __init__(self, config: RadalignConfig) -> None:
        super().__init__(config)
        # Not on transformers' meta device: buffers that no checkpoint holds are made here.
        with torch.device("cpu"):
            self.method: Method = config.settings().method.build(
                Sizes(config.vocabulary, config.classes)
            )
        self.post_init()

    @classmethod
    def holding(cls, method: Method, config: RadalignConfig) -> Self:
        """A model of this very method."""
        model = cls(config)
        model.method = method
        model.eval()
        return model

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As transformers has it. Raises InputError for weights that are not all of the model."""
        model, found = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            if wrong := found.get(what):
                raise InputError(
                    f"{args[0]}: not the weights of its config ({what}: {next(iter(wrong))}): "
                    "export it again"
                )
        # transformers leaves buffers that no file holds as memory was.
        for name, made in cls(model.config).named_non_persistent_buffers():
            model.get_buffer(name).copy_(made)
        return (model, found) if output_loading_info else model

    def forward(
        self, pixel_values: Float[Tensor, "images 1 height width"]
    ) -> Float[Tensor, "images channels rows columns"]:
        """The image encoder's last feature map."""
        return self.method.feature_map(pixel_values)

    def get_image_features(
        self, pixel_values: Float[Tensor, "images 1 height width"]
    ) -> Float[Tensor, "images d"]:
        """Unit vectors of images, as `Model.embed_images`."""
        data = self.config.settings().data
        return image_vectors(
            self.method, without_reports(pixel_values, data, known=len(pixel_values))
        )

    def _init_weights(self, module: Any) -> None:
        """Modules have made their own when they were built."""


class RadalignImageProcessor(BaseImageProcessor):
    """Images as `pixel_values`, normalised squares of one channel; see `Model` for their kinds."""

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        stored_images: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data, self.stored_images = data or {}, stored_images or {}

    @classmethod
    def of(cls, model: Model) -> Self:
        """That of a model."""
        data = model.data.model_dump(mode="json") | {"shards": "shards"}
        return cls(data=data, stored_images=asdict(model.stored))

    def __call__(
        self, images: ImageInput | Sequence[ImageInput], return_tensors: str | None = None
    ) -> BatchFeature:
        """The images. Raises InputError for one that cannot be read."""
        reader = ImageReader(
            validate(DataConfig, self.data, where="preprocessor_config.json"),
            StoredImages(**self.stored_images),
        )
        read = [reader.read(each) for each in images_of(images)]
        pixels = reader.batch(read, torch.device("cpu")).images
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)


AutoConfig.register(RadalignConfig.model_type, RadalignConfig)
AutoModel.register(RadalignConfig, RadalignModel)
AutoImageProcessor.register(
    RadalignConfig, image_processor_classes={"torchvision": RadalignImageProcessor}
)
