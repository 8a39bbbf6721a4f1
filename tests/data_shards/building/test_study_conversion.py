import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.building.settings import ShardsConfig
from data_shards.building.study_conversion import ConvertedStudy, convert_study
from data_shards.errors import InputError
from data_shards.images.notes import Note
from data_shards.images.refusals import BadImageError
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import Box, Report, Sample, SourceImage, SourceMask, StudyRecord

SOURCE = {"table": "t", "image_root": ".", "columns": {"report": "r"}, "default_view": "PA"}
STOP = ShardsConfig.model_validate(
    {"source": {"name": "csv_pairs", **SOURCE}, "output": "unset", "longest_side_px": 100}
)
DROP = STOP.model_copy(update={"bad_images": "drop"})


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """A frontal of 400 x 300 px with a bright box, and a lateral that is small already."""
    frontal = np.full((300, 400), 90, np.uint8)
    frontal[60:180, 80:200] = 220
    Image.fromarray(frontal).save(tmp_path / "frontal.png")
    Image.fromarray((frontal > 100).astype(np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(frontal[:80, :90]).save(tmp_path / "lateral.png")
    Image.fromarray(frontal[:80, :90] * 0).save(tmp_path / "lateral_mask.png")
    return Sample(
        patient_id="p",
        study_id="s",
        images=(
            SourceImage("a", tmp_path / "frontal.png", "PA"),
            SourceImage("b", tmp_path / "lateral.png", "L"),
        ),
        report=Report("Opacity.", {"findings": "Opacity."}, {"findings": ("Opacity.",)}),
        labels={"Edema": 1.0, "Fracture": None},
        boxes=(Box(0, 80, 60, 120, 120, "Opacity", "an opacity"), Box(1, 1, 2, 3, 4, "Device")),
        masks=(
            SourceMask(0, "Lung Opacity", tmp_path / "mask.png"),
            SourceMask(1, "Lung Opacity", tmp_path / "lateral_mask.png"),
        ),
    )


def convert(sample: Sample, config: ShardsConfig = STOP) -> ConvertedStudy:
    study = convert_study(sample, config, key="p_s", split="train")
    assert isinstance(study, ConvertedStudy)
    return study


def pixels(study: ConvertedStudy, member: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(study.members[member])))


def test_boxes_and_masks_follow_the_image_into_its_stored_size(sample: Sample) -> None:
    study = convert(sample)
    first, second = study.record.images
    assert (first.width, first.height, first.original_width) == (100, 75, 400)
    assert (second.width, second.height) == (90, 80)
    box, other = study.record.boxes
    assert (box.x, box.y, box.width, box.height) == (20, 15, 30, 30)
    assert (other.x, other.y, other.width, other.height) == (1, 2, 3, 4)
    bright = pixels(study, "image0.jpg")[15:45, 20:50]
    assert bright.min() > 150
    inside = pixels(study, "mask_Lung_Opacity.png") > 0
    assert inside[15:45, 20:50].all()
    assert inside.sum() == 30 * 30


def test_masks_of_further_images_have_names_of_their_own(sample: Sample) -> None:
    study = convert(sample)
    assert set(study.members) == {
        "json",
        "image0.jpg",
        "image1.jpg",
        "mask_Lung_Opacity.png",
        "mask_Lung_Opacity_image1.png",
    }
    assert pixels(study, "mask_Lung_Opacity_image1.png").shape == (80, 90)


def test_the_record_survives_its_json(sample: Sample) -> None:
    study = convert(sample)
    assert StudyRecord.from_json(study.members["json"]) == study.record


def test_a_dropped_image_takes_its_boxes_and_masks_with_it(sample: Sample) -> None:
    Path(str(sample.images[0].path)).write_bytes(b"")
    study = convert(sample, DROP)
    assert [image.id for image in study.record.images] == ["b"]
    assert [(box.image, box.category) for box in study.record.boxes] == [(0, "Device")]
    assert [(mask.image, mask.member) for mask in study.record.masks] == [
        (0, "mask_Lung_Opacity.png")
    ]
    (dropped,) = study.dropped_images
    assert (dropped.key, dropped.reason) == ("p_s/a", "an empty file")


def test_a_study_without_a_readable_image_goes_by_what_is_wrong_with_each(sample: Sample) -> None:
    first, second = (Path(str(image.path)) for image in sample.images)
    first.unlink()
    second.write_bytes(b"<html>403</html>")
    study = convert_study(sample, DROP, key="p_s", split="train")
    assert study == (
        DroppedSample(key="p_s/a", reason="missing image"),
        DroppedSample(key="p_s/b", reason="a web page or an error message of a server"),
    )
    study = convert_study(
        replace(sample, images=(), boxes=(), masks=()), DROP, key="k", split="test"
    )
    assert study == (DroppedSample(key="k", reason="no image"),)


def test_a_mask_without_a_border_is_noted(sample: Sample) -> None:
    lateral = ("mask_Lung_Opacity_image1.png", Note("plain_mask", "nothing inside"))
    assert convert(sample).notes == (lateral,)
    for level, seen in ((0, "nothing inside"), (9, "all inside")):
        Image.fromarray(np.full((300, 400), level, np.uint8)).save(str(sample.masks[0].path))
        frontal = ("mask_Lung_Opacity.png", Note("plain_mask", seen))
        assert convert(sample).notes == (frontal, lateral)


def test_annotations_of_an_image_the_study_does_not_have_are_refused(sample: Sample) -> None:
    stray = replace(sample, boxes=(Box(2, 0, 0, 1, 1, "Device"),))
    with pytest.raises(InputError, match="p_s: a box names image 2, but the study has 2"):
        convert(stray)


def test_a_box_beside_its_image_is_refused(sample: Sample) -> None:
    for place in ((400, 0), (0, 300), (-5, 0), (0, -5), (-4, 299)):
        stray = replace(sample, boxes=(Box(0, *place, 5, 5, "Device"),))
        with pytest.raises(InputError, match=r"a box of 'Device' .* image of 400 x 300 px"):
            convert(stray)


def test_an_image_of_another_size_than_its_boxes_were_drawn_on_is_refused(sample: Sample) -> None:
    for size in ((400, 300), None):
        same = replace(sample.images[0], size_px=size)
        convert(replace(sample, images=(same, *sample.images[1:])))
    other = replace(sample.images[0], size_px=(800, 600), listed="t.csv: line 2")
    said = r"t.csv: line 2: image a: boxes were drawn on 800 x 600 px, and .*.png has 400 x 300 px"
    with pytest.raises(InputError, match=said):
        convert(replace(sample, images=(other, *sample.images[1:])))


def test_masks_whose_categories_have_one_file_name_are_refused(sample: Sample) -> None:
    other = replace(sample.masks[0], category="Lung/Opacity")
    with pytest.raises(InputError, match=r"mask_Lung_Opacity.png would be .* name them apart"):
        convert(replace(sample, masks=(*sample.masks, other)))


def test_a_damaged_mask_stops_whatever_the_policy(sample: Sample) -> None:
    Path(str(sample.masks[0].path)).write_bytes(b"")
    with pytest.raises(BadImageError, match=r"mask.png: an empty file: fetch the file again$"):
        convert_study(sample, DROP, key="p_s", split="train")
