"""What image encoders ask of a trunk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from data_shards.errors import InputError
from distributed_pretrain.models.trunks.weights import load_weights

Images: TypeAlias = Float[Tensor, "batch 3 height width"]
Maps: TypeAlias = Float[Tensor, "batch channels rows columns"]


class ImageTokens(NamedTuple):
    """Images as one vector and a map of regions: what GLoRIA, LIMITR and MGCA compare with words.

    The vector is the mean of `image_map`, a trunk's last map, or its class token as the only cell.
    `class_attention` is what the class token pays each region (row-major) in the last layer, the
    mean over heads, without gradient; it sums to less than 1, as the class token also attends to
    itself. None where there is no class token.
    """

    image_map: Float[Tensor, "batch channels image_rows image_columns"]
    region_map: Float[Tensor, "batch region_channels rows columns"]
    class_attention: Float[Tensor, "batch regions"] | None = None

    @property
    def image(self) -> Float[Tensor, "batch channels"]:
        """The mean of its map."""
        return self.image_map.mean(dim=(2, 3))

    @property
    def regions(self) -> Float[Tensor, "batch rows columns region_channels"]:
        """The map with its channels last."""
        return self.region_map.permute(0, 2, 3, 1)


class Stage(NamedTuple):
    """One map of a trunk's stages: its channels, and how many pixels apart its cells are."""

    channels: int
    stride: int


class Trunk(nn.Module, ABC):
    """A network from images to a map of `channels`; each kind is one file beside this.

    `region_channels` are those of the regions of `tokens`, None for a trunk that has none.
    `patch_size` is the side in pixels by which the images' must be divisible, None for any.
    `pyramid` are the maps that `stages` gives, finest first; empty for a trunk that has none.
    """

    channels: int
    pyramid: tuple[Stage, ...] = ()
    region_channels: int | None = None
    patch_size: int | None = None

    @abstractmethod
    def forward(self, images: Images) -> Maps:
        """The last feature map. Raises InputError for images that are not whole patches."""

    def tokens(self, images: Images) -> ImageTokens:
        """The images and their regions; errors as in `forward`."""
        raise NotImplementedError("region_channels is None")

    def stages(self, images: Images) -> tuple[Maps, ...]:
        """The maps of `pyramid`, the last of which is that of `forward`."""
        raise NotImplementedError("pyramid is empty")

    def load_weights(self, name: str, weights: str) -> None:
        """Load torchvision's weights of its model `name` ("IMAGENET1K_V1"), or a file.

        Published weights are downloaded once and cached. Raises InputError when that fails, and as
        the function `load_weights`.
        """
        available = torchvision.models.get_model_weights(name).__members__

        def download(chosen: str) -> dict[str, Tensor]:
            found = available[chosen]
            try:
                state: dict[str, Tensor] = found.get_state_dict(progress=False, check_hash=True)
            except OSError as error:
                cache = Path(torch.hub.get_dir()) / "checkpoints"
                raise InputError(
                    f"weights={chosen}: {found.url} could not be downloaded ({error}): fetch it "
                    f"elsewhere and put it into {cache}, or give the file's path as weights"
                ) from error
            return state

        load_weights(self, name, weights, published=available, download=download)
