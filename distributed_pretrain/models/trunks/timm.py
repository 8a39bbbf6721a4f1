"""Trunks of timm, an optional library: its convolutional networks and its vision transformers."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from distributed_pretrain.models.pooling import attention_of_first_token
from distributed_pretrain.models.trunks.base import Images, ImageTokens, Maps, Trunk
from distributed_pretrain.models.trunks.vision_transformer import check_whole_patches
from distributed_pretrain.models.trunks.weights import load_weights

PREFIX = "timm/"
# Where timm keeps what is laid out like its VisionTransformer.
_TRANSFORMER_MODULES = ("vision_transformer", "deit")


class _TimmTrunk(Trunk):
    """`model`, made by timm with `options`; its weights are timm's of some tag, or a file."""

    options: ClassVar[dict[str, Any]]

    def __init__(self, name: str) -> None:
        super().__init__()
        self.architecture = name.partition(".")[0]
        self.model: Any = _library().create_model(name, **self.options)

    def load_weights(self, name: str, weights: str) -> None:
        """Load the weights of a tag ("a1_in1k"), from the hub or its cache, or a file."""
        timm, architecture = _library(), self.architecture
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]

        def download(tag: str) -> dict[str, Tensor]:
            tagged = f"{architecture}.{tag}"
            try:
                model = timm.create_model(tagged, pretrained=True, **self.options)
            except (OSError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"weights={tag}: {tagged} could not be loaded ({reason}): where there is a "
                    f"network, run `hf download timm/{tagged} --local-dir FOLDER`, and give the "
                    "weights file in FOLDER as weights"
                ) from error
            state: dict[str, Tensor] = model.state_dict()
            return state

        load_weights(self.model, name, weights, published=tags, download=download)

    def whole_state(self) -> dict[str, Tensor]:
        """The tensors by the names of timm's whole model; its classifier's are zeros.

        That is of the architecture as timm makes it by its name alone.
        """
        whole: dict[str, Tensor] = _library().create_model(self.architecture).state_dict()
        # Of a model's layers timm makes modules of their own, named by their paths with "_".
        names = {renamed: name for name in whole for renamed in _names_of_layers(name)}
        own = {names[key]: tensor for key, tensor in self.model.state_dict().items()}
        return {name: own.get(name, torch.zeros_like(each)) for name, each in whole.items()}


class TimmMaps(_TimmTrunk):
    """The stages of a convolutional network; regions are the cells of the last but one."""

    options: ClassVar[dict[str, Any]] = {"features_only": True, "out_indices": (-2, -1)}

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.region_channels, self.channels = self.model.feature_info.channels()

    def forward(self, images: Images) -> Maps:
        """The map of the last stage."""
        last: Tensor = self.model(images)[-1]
        return last

    def tokens(self, images: Images) -> ImageTokens:
        """The map of the last stage, and that of the stage before it."""
        before_last, last = self.model(images)
        return ImageTokens(last, before_last)


class TimmTransformer(_TimmTrunk):
    """A vision transformer at any multiple of its patch; other positions are resized as by timm."""

    # Without pooling the last norm is that of every token, and no layer is without gradient.
    options: ClassVar[dict[str, Any]] = {
        "num_classes": 0,
        "global_pool": "",
        "dynamic_img_size": True,
    }

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.patch_size = max(self.model.patch_embed.patch_size)
        self.channels = self.region_channels = self.model.num_features

    def forward(self, images: Images) -> Maps:
        """The map of patches, after the last norm."""
        return self._map(images, self.model.forward_features(self._checked(images)))

    def tokens(self, images: Images) -> ImageTokens:
        """The class token, the patches and where the first looks; without one, their mean."""
        model, pixels, batch = self.model, self._checked(images), len(images)
        if not model.has_class_token:
            region_map = self._map(images, model.forward_features(pixels))
            return ImageTokens(region_map, region_map)
        encoded, ((patches, prefix),) = model.forward_intermediates(
            pixels,
            indices=[len(model.blocks) - 2],
            return_prefix_tokens=True,
            output_fmt="NLC",
        )
        attention = _class_attention(model.blocks[-1], torch.cat([prefix, patches], dim=1))
        return ImageTokens(
            encoded[:batch, 0, :, None, None],
            self._map(images, encoded),
            None if attention is None else attention[:batch, model.num_prefix_tokens :],
        )

    def _checked(self, images: Tensor) -> Tensor:
        assert self.patch_size is not None
        check_whole_patches(images, self.patch_size)
        # timm cannot reshape a batch of no images; of the one instead nothing is kept.
        return images if len(images) else images.new_zeros(1, *images.shape[1:])

    def _map(self, images: Tensor, encoded: Tensor) -> Tensor:
        """The patches of all tokens, in rows and columns."""
        grid = self.model.patch_embed.dynamic_feat_size(images.shape[-2:])
        patches = encoded[: len(images), self.model.num_prefix_tokens :]
        last_map: Tensor = patches.mT.unflatten(2, grid)
        return last_map


def timm_trunk(backbone: str) -> Trunk:
    """The trunk of "timm/" and a name of timm, with or without a tag, at random.

    Raises InputError when timm is not installed, has no such model, or one whose layers cannot be
    used here.
    """
    name = backbone.removeprefix(PREFIX)
    timm = _library()
    architecture = name.partition(".")[0]
    tagged = timm.list_pretrained(f"{architecture}.*")
    if name not in (*timm.list_models(), *tagged):
        close = tagged or get_close_matches(architecture, timm.list_models())
        raise InputError(
            f"backbone={backbone}: timm has no such model: "
            + (f"did you mean {', '.join(close)}?" if close else "see timm.list_models()")
        )
    try:
        if timm.models.is_model_in_modules(name, _TRANSFORMER_MODULES):
            return TimmTransformer(name)
        trunk = TimmMaps(name)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        raise _refused(backbone, "timm does not take its classifier off") from error
    if type(trunk.model) is not timm.models.FeatureListNet or trunk.model.output_fmt != "NCHW":
        raise _refused(backbone, "is neither convolutional nor a plain vision transformer")
    norms = {type(each) for each in trunk.modules() if isinstance(each, nn.BatchNorm2d)}
    if norms - {nn.BatchNorm2d}:
        raise _refused(backbone, "joins batch norms with activations, which `norm` cannot exchange")
    return trunk


def _names_of_layers(name: str) -> list[str]:
    """A tensor's name, and those that it may have where the first parts are one module's."""
    parts = name.split(".")
    return [name] + ["_".join(parts[:i]) + "." + ".".join(parts[i:]) for i in range(2, len(parts))]


def _refused(backbone: str, reason: str) -> InputError:
    return InputError(
        f"backbone={backbone}: {reason}: choose a ResNet, a ConvNeXt or a vision transformer of "
        "timm, or a model of torchvision"
    )


def _library() -> Any:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"backbone={PREFIX}...: timm is not installed: `pip install timm`, or choose a "
            "backbone of torchvision"
        ) from error
    return timm


@torch.no_grad()
def _class_attention(block: Any, tokens: Tensor) -> Tensor | None:
    """What the first token pays each in a block; None where that is not attention as in ViT."""
    timm = _library()
    known = (timm.models.vision_transformer.Block, timm.layers.Attention)
    if (type(block), type(getattr(block, "attn", None))) != known:
        return None
    attention = block.attn
    query, key, _ = (
        attention.qkv(block.norm1(tokens)).unflatten(2, (3, attention.num_heads, -1)).unbind(2)
    )
    return attention_of_first_token(
        attention.q_norm(query[:, 0]).flatten(1),
        attention.k_norm(key).flatten(2),
        heads=attention.num_heads,
    )
