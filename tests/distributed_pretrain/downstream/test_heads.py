"""The heads of LoVT's tables: their sizes, what they see, and when their encoder learns."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.downstream.heads.detector import Detector, DetectorOptions, decoded
from distributed_pretrain.downstream.heads.linear_segmentation import LinearSegmentation
from distributed_pretrain.downstream.heads.on_encoder import OnEncoder
from distributed_pretrain.downstream.heads.unet import UNet
from distributed_pretrain.downstream.heads.yolov3 import YoloV3
from distributed_pretrain.downstream.protocols.base import HeadSizes, ProtocolConfig
from distributed_pretrain.downstream.protocols.finetune import FinetuneConfig
from distributed_pretrain.downstream.protocols.linear import LinearConfig
from distributed_pretrain.downstream.protocols.unet import UNetConfig
from distributed_pretrain.downstream.protocols.yolov3 import YoloConfig
from distributed_pretrain.downstream.settings import DownstreamConfig
from distributed_pretrain.methods.boxes import BoxOutputs
from distributed_pretrain.methods.limitr.settings import LimitrConfig
from distributed_pretrain.models.image_encoder import ImageEncoder, make_image_encoder
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.distributed_pretrain.downstream.phantom_heads import (
    CLASSES,
    built,
    drawn_batch,
    protocol_of,
    tiny_encoder,
)
from tests.paths import CONFIGS
from tests.tiny.methods import tiny_method, tiny_profile
from tests.tiny.sizes import IMAGE_SIZE_PX


def size_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def resnet50() -> ImageEncoder:
    """Of shapes alone."""
    with torch.device("meta"):
        return make_image_encoder("resnet50")


def test_heads_on_a_resnet50_have_the_authors_numbers_of_parameters(resnet50: ImageEncoder) -> None:
    with torch.device("meta"):
        unet = UNet(resnet50, 1, image_size_px=224)
        sizes = [
            size_of(LinearSegmentation(resnet50, 1, image_size_px=224)),
            size_of(LinearSegmentation(resnet50, 8, image_size_px=224)),
            size_of(unet),
            size_of(unet.bridge),
            size_of(YoloV3(resnet50, 6, image_size_px=224)),
        ]
    assert sizes == [2_049, 16_392, 124_300_544 + 65, 75_509_760, 21_626_934]


def test_the_last_stage_is_the_feature_map() -> None:
    trunk = tiny_encoder().image_encoder.eval().backbone
    images = torch.randn(2, 3, 64, 64)
    maps = trunk.stages(images)
    assert maps[-1].equal(trunk(images))
    for found, stage in zip(maps, trunk.pyramid, strict=True):
        assert found.shape == (2, stage.channels, 64 // stage.stride, 64 // stage.stride)


@pytest.mark.parametrize("last_stride", [1, 2])
def test_they_fit_encoders_of_either_last_stride(last_stride: int) -> None:
    encoder = make_image_encoder("resnet18", width=0.125, last_stride=last_stride)  # type: ignore[arg-type]
    maps = [*encoder.backbone.stages(torch.randn(2, 3, 64, 64))]
    unet = UNet(encoder, 3, image_size_px=64)
    assert unet([torch.randn(2, 3, 64, 64), *maps]).shape == (2, 3, 64, 64)
    scales = YoloV3(encoder, 6, image_size_px=64)(maps[2:])
    assert [found.shape[-1] for found in scales] == [64 // 16 // last_stride, 4, 8]


def test_an_encoder_without_stages_and_an_image_beside_the_grid_are_refused() -> None:
    patches = make_image_encoder("patches")
    for head in (UNet, YoloV3):
        with pytest.raises(InputError, match=r"protocol.name=\w+: reads the maps of 5 stages.*0"):
            head(patches, 1, image_size_px=64)
        with pytest.raises(InputError, match=r"data.image_size_px=72.*use 64 or 96"):
            head(make_image_encoder("resnet18", width=0.125), 1, image_size_px=72)


def test_a_decoded_box_is_that_of_its_targets() -> None:
    anchors = torch.tensor([[10.0, 20.0], [30.0, 15.0], [5.0, 5.0]])
    predictions = torch.full((1, 3, 7, 4, 4), -9.0)
    predictions[0, 1, :, 2, 3] = torch.tensor([0.0, 0.0, 0.5, -0.25, 9.0, -9.0, 9.0])
    found = decoded(predictions.flatten(1, 2), anchors, stride=16)[0]
    sure = found[found[:, 4] > 0.5]
    width, height = 30 * torch.tensor(0.5).exp(), 15 * torch.tensor(-0.25).exp()
    expected = torch.tensor([56 - width / 2, 40 - height / 2, 56 + width / 2, 40 + height / 2])
    assert len(sure) == 1
    assert torch.allclose(sure[0, :4], expected, atol=1e-4)
    assert sure[0, 5:].argmax() == 1


def test_of_boxes_that_overlap_by_the_threshold_the_surer_one_stays() -> None:
    """With one more pixel each way: 9 x 9 and 9 x 3.6 overlap by 0.46 of whole pixels."""
    detector = Detector(
        tiny_encoder().image_encoder, 1, image_size_px=IMAGE_SIZE_PX, frozen=True
    ).eval()
    rows = torch.tensor(
        [
            [0.0, 0.0, 9.0, 9.0, 0.9, 1.0],
            [0.0, 0.0, 9.0, 3.0, 0.8, 1.0],  # 40 of 100 pixels: just enough
            [0.0, 0.0, 9.0, 2.9, 0.7, 1.0],  # a little less
            [30.0, 30.0, 39.0, 39.0, 0.19, 1.0],  # not sure enough
        ]
    )
    assert detector._detect(rows).confidence.tolist() == pytest.approx([0.9, 0.7])


def test_nothing_is_detected_where_nothing_is_sure() -> None:
    detector = built(YoloConfig(min_confidence=1.0))
    batch = drawn_batch(2)
    outputs = detector.eval()(batch)
    assert isinstance(outputs, BoxOutputs)
    assert [len(each.category) for each in detector.detect(outputs)] == [0, 0]  # type: ignore[operator]


def test_the_authors_anchor_is_two_pixels_wider() -> None:
    encoder = tiny_encoder().image_encoder
    sizes = {"image_size_px": 224, "frozen": True}
    ours, authors = (
        Detector(copy.deepcopy(encoder), 1, **sizes, options=DetectorOptions(authors_anchors=each))  # type: ignore[arg-type]
        for each in (False, True)
    )
    difference = authors.anchors - ours.anchors
    assert difference[0, 0, 0].item() == pytest.approx(2.0, abs=1e-4)
    assert int((difference != 0).sum()) == 1


PROTOCOLS = [UNetConfig, YoloConfig]


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_the_encoder_holds_still_until_the_head_has_warmed_up(kind: type[ProtocolConfig]) -> None:
    settings = {"encoder": "finetune", "warmup_steps": 2, "warmup_learning_rate": 0.5}
    objective = built(protocol_of(kind, **settings))
    assert isinstance(objective, OnEncoder)
    engine = Engine(TrainingConfig())
    adam = OptimizerConfig(name="adam", weight_decay=0.1)
    engine.prepare(objective.train(), build_optimizer(adam, objective))
    before = copy.deepcopy(objective.state_dict())
    batch = drawn_batch(4)
    moved = []
    for step in range(4):
        assert objective.learning_rate(step, 0.01) == (0.5 if step < 2 else 0.01)
        objective.start_step(epoch=0, step=step)
        objective.loss(objective(batch))["total"].backward()
        # DDP is content: each parameter that will learn has a gradient.
        assert all(p.grad is not None for p in objective.parameters())
        objective.after_backward()
        engine.update(0.01, clip_norm=None, norm=engine.gradient_norm())
        after = objective.state_dict()
        changed = {k for k, v in after.items() if not v.equal(before[k])}
        moved.append({key.partition(".")[0] for key in changed})
    assert moved == [{"head"}, {"head"}, {"head", "image_encoder"}, {"head", "image_encoder"}]


def test_batch_norms_may_wait_for_the_epoch_after_the_warm_up() -> None:
    """LoVT's authors', also where a start goes on in the epoch that the warm-up ended in."""
    settings = {"encoder": "finetune", "warmup_steps": 2}
    waits, at_once = (
        built(protocol_of(UNetConfig, **settings, batch_norms_after_warmup=each))
        for each in ("next_epoch", "at_once")
    )
    assert isinstance(waits, OnEncoder)
    assert isinstance(at_once, OnEncoder)
    # Three steps an epoch: the warm-up ends in the first.
    learning = []
    for step in range(7):
        for each in (waits, at_once):
            each.train().start_step(epoch=step // 3, step=step)
        learning.append((waits.image_encoder.training, at_once.image_encoder.training))
        if step == 2:
            assert waits(drawn_batch(2)).logits.requires_grad
            kept = copy.deepcopy(waits.state_dict())
    assert learning == [*[(False, False)] * 2, (False, True), *[(True, True)] * 4]
    resumed = built(protocol_of(UNetConfig, **settings, batch_norms_after_warmup="next_epoch"))
    assert isinstance(resumed, OnEncoder)
    resumed.load_state_dict(kept)
    for epoch in (0, 1):
        resumed.train().start_step(epoch=epoch, step=3 + epoch)
        assert resumed.image_encoder.training == bool(epoch)


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_a_frozen_encoder_is_the_same_in_training_and_evaluation(
    kind: type[ProtocolConfig],
) -> None:
    objective = built(protocol_of(kind, encoder="frozen"))
    assert isinstance(objective, OnEncoder)
    batch = drawn_batch(3)
    training = objective.train().features_of(batch)
    evaluation = objective.eval().features_of(batch)
    assert training.keys() == evaluation.keys()
    assert all(training[name].equal(each) for name, each in evaluation.items())
    assert not any(p.requires_grad for p in objective.image_encoder.parameters())


def test_terms_of_one_class_have_no_category() -> None:
    assert "category" not in built(YoloConfig(), classes=1).term_weights
    assert "category" in built(YoloConfig(), classes=CLASSES).term_weights


def test_a_warm_up_and_deepspeed_are_refused_together() -> None:
    profile = CONFIGS / "downstream" / "tasks" / "siim_unet_finetune.yaml"
    asked = ["encoder=random", "training.distributed={name: deepspeed}"]
    with pytest.raises(InputError, match=r"protocol.name=unet: DeepSpeed updates .*warmup_steps=0"):
        load_profile(DownstreamConfig, profile, asked)
    load_profile(DownstreamConfig, profile, [*asked, "protocol.warmup_steps=0"])


@pytest.mark.parametrize("protocol", [LinearConfig(), FinetuneConfig()])
def test_labels_are_told_of_images_of_the_size_that_the_encoder_was_trained_on(
    protocol: ProtocolConfig,
) -> None:
    """GLoRIA and LIMITR stretch their images: LIMITR's table probes them so."""
    profile = tiny_profile("phantom_limitr")
    assert isinstance(profile.method, LimitrConfig)
    stretched = profile.method.model_copy(update={"upsample_px": 2 * IMAGE_SIZE_PX})
    encoder = tiny_method(profile.model_copy(update={"method": stretched})).eval()
    head = protocol.build(encoder, HeadSizes(CLASSES, IMAGE_SIZE_PX)).eval()
    batch = drawn_batch(2)
    found = head.features_of(batch)["means"]
    larger = nn.functional.interpolate(batch.images, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found, encoder.image_encoder(larger).mean(dim=(2, 3)))
    torch.testing.assert_close(found, encoder.feature_map(batch.images).mean(dim=(2, 3)))
    assert not torch.allclose(found, encoder.image_encoder(batch.images).mean(dim=(2, 3)))
