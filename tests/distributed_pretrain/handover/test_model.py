"""A run in Python: what it makes of files and texts is what an evaluation makes of its shards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from data_shards.errors import InputError
from data_shards.phantom.layouts.dicom import dicom_bytes
from data_shards.records.study import Box, ImageRecord
from distributed_pretrain import load
from distributed_pretrain.data.geometry import ModelSquare, region_map_on_pixels
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.tokenization import NoReports, SentenceTokenizer
from distributed_pretrain.evaluation.evaluate import ImageTextFeatureOutputs, embed
from distributed_pretrain.handover.images import ImageInput, ImageReader
from distributed_pretrain.handover.model import Model
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.pretrain.build import open_split
from distributed_pretrain.run_folder.intact import StoredImages
from tests.distributed_pretrain.phantom_batches import configured, opened
from tests.tiny.methods import tiny_profile

pytestmark = pytest.mark.xdist_group("short_run")  # a fixture of one process
FEW = 6


@pytest.fixture(scope="module")
def model(short_run: Path) -> Model:
    return load(short_run, checkpoint="last")


@pytest.fixture(scope="module")
def studies(model: Model, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    """The first validation studies of the run's shards as files and texts."""
    folder = tmp_path_factory.mktemp("studies")
    split = open_split(model.data, "validate")
    found = []
    for position in range(FEW):
        record = split.read(position)
        path = folder / f"{record.key}.jpg"
        path.write_bytes(split.read_member(position, record.images[0].member))
        found.append((path, record.report.raw))
    return found


@pytest.fixture(scope="module")
def evaluated(model: Model) -> ImageTextFeatureOutputs:
    loader = EvaluationLoader(open_split(model.data, "validate"), model.tokenizer, model.data)
    found = []
    for _, outputs in embed(model.method, loader, most=FEW):
        assert isinstance(outputs, ImageTextFeatureOutputs)
        found.append(outputs)
    return found[0]


def test_images_and_reports_are_embedded_as_by_an_evaluation(
    model: Model, studies: list[tuple[Path, str]], evaluated: ImageTextFeatureOutputs
) -> None:
    paths, reports = [path for path, _ in studies], [report for _, report in studies]
    images, texts = model.embed_images(paths), model.embed_reports(reports)
    torch.testing.assert_close(images, normalize(evaluated.images.image[:FEW], dim=1))
    torch.testing.assert_close(texts, normalize(evaluated.reports.report[:FEW], dim=1))
    torch.testing.assert_close(model.similarity(paths, reports), images @ texts.T)
    torch.testing.assert_close(model.feature_maps(paths), evaluated.feature_map[:FEW])
    torch.testing.assert_close(model.image_encoder(model.pixels(paths)), model.feature_maps(paths))
    matches = model.retrieve(paths, reports, k=2)
    nearest = (images @ texts.T).topk(2, dim=1)
    assert [[each.place for each in some] for some in matches] == nearest.indices.tolist()


def test_one_is_as_many_and_files_are_as_arrays(
    model: Model, studies: list[tuple[Path, str]], tmp_path: Path
) -> None:
    path, report = studies[0]
    pixels = np.asarray(Image.open(path))
    alone = model.embed_images(path)
    dicom = tmp_path / "chest.dcm"
    dicom.write_bytes(dicom_bytes(pixels, name="1.2.3", view="PA", jpeg=False))
    assert alone.shape[0] == 1
    ways: dict[str, ImageInput] = {
        "str": str(path),
        "DICOM": dicom,
        "PIL": Image.open(path),
        "colour": Image.open(path).convert("RGB"),
        "uint8": pixels,
        "uint16": pixels.astype(np.uint16) * 257,
        "floats": pixels / 255,
        "tensor": torch.from_numpy(pixels / np.float32(255)),
    }
    halves = torch.from_numpy(pixels / np.float32(255)).bfloat16()
    assert model.embed_images(halves).equal(model.embed_images(halves.float()))
    for name, image in ways.items():
        torch.testing.assert_close(model.embed_images(image), alone, msg=name)
    assert model.embed_reports(report).equal(model.embed_reports([report]))
    read = model.read_reports([report])
    assert model.retrieve(path, read) == model.retrieve(path, [report])
    assert model.embed_reports(np.array([report] * 2)).shape[0] == 2  # type: ignore[arg-type]


def test_a_phrase_is_looked_for_on_the_images_own_pixels(
    model: Model, studies: list[tuple[Path, str]]
) -> None:
    path, _ = studies[0]
    image = Image.open(path)
    width, height = 3 * image.width, 2 * image.height
    heat = model.ground(image.resize((width, height)), ["opacity in the left lung", "no edema"])
    assert heat.shape == (2, height, width)
    assert heat.isfinite().all()
    assert heat.std() > 0
    assert model.ground(path, "no edema").shape == (1, image.height, image.width)


@pytest.mark.parametrize(("height", "width", "crop"), [(40, 30, 1.0), (20, 50, 0.8)])
def test_heat_lies_where_the_boxes_of_an_evaluation_do(
    height: int, width: int, crop: float
) -> None:
    data = configured(Path("none"), augmentation={"evaluation_crop_fraction": crop})
    reader = ImageReader(data, StoredImages(0.5, 0.2, 100))
    cells = torch.rand(1, 4, 4)
    heat = region_map_on_pixels(cells, 32)
    found = reader.on_image(heat, height=height, width=width)
    image = ImageRecord("image", "PA", "image.jpg", width, height, width, height)
    square = ModelSquare(image, 32, crop)
    for row in range(0, height, 7):
        for column in range(0, width, 7):
            x, y, side, _ = square.box(Box(0, column, row, 1, 1, ""))
            x, y = x + side / 2, y + side / 2
            value = found[0, row, column]
            if not (0 <= x <= 32 and 0 <= y <= 32):
                assert value.isnan()
                continue
            near = heat[0, min(int(y), 31), min(int(x), 31)]
            assert abs(value - near) < 0.35
    assert found.isnan().any() == (crop < 1)


def test_classes_are_the_means_of_their_prompts(
    model: Model, studies: list[tuple[Path, str]]
) -> None:
    paths = [path for path, _ in studies]
    prompts = {"present": ["There is edema.", "Edema is seen."], "absent": "There is no edema."}
    scores = model.zero_shot(paths, prompts)
    texts = model.embed_reports(["There is edema.", "Edema is seen.", "There is no edema."])
    classes = torch.stack([normalize(texts[:2].mean(dim=0), dim=0), texts[2]])
    torch.testing.assert_close(scores, model.embed_images(paths) @ classes.T)


@pytest.mark.parametrize("name", ["phantom_limitr", "phantom_gloria", "phantom_byol"])
def test_every_kind_of_method_is_a_model(
    name: str, phantom_shards: Path, small_tokenizer: object
) -> None:
    """Laterals that are not there, words for sentences, and no reports at all."""
    config = tiny_profile(name)
    reads = config.method.report_encoder is not None
    tokenizer = small_tokenizer if reads else NoReports()
    assert isinstance(tokenizer, SentenceTokenizer | NoReports)
    torch.manual_seed(0)
    method = config.method.build(Sizes(tokenizer.vocabulary_size, len(config.data.labels))).eval()
    data = configured(phantom_shards, views=config.data.views)
    config = config.model_copy(update={"data": data})
    stored = StoredImages.of(opened(data).manifest)
    model = Model(config, method, tokenizer, stored, torch.device("cpu"))
    image = np.random.default_rng(0).integers(0, 255, (50, 40), dtype=np.uint8)
    assert model.embed_images([image, image.T]).norm(dim=1).allclose(torch.ones(2))
    if reads:
        report = "FINDINGS: There is a large pleural effusion."
        assert model.similarity([image] * 2, [report] * 3).shape == (2, 3)
        assert model.ground(image, "large effusion").shape == (1, 50, 40)
    else:
        with pytest.raises(InputError, match="reads no reports"):
            model.embed_reports("effusion")


def test_nothing_of_the_shards_is_asked(short_run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(short_run, moved, symlinks=True)
    config = (moved / "config.yaml").read_text()
    shards = next(line for line in config.splitlines() if "shards:" in line)
    (moved / "config.yaml").write_text(config.replace(shards, "  shards: /gone"))
    ours, theirs = load(moved, checkpoint="last"), load(short_run, checkpoint="last")
    assert ours.stored == theirs.stored
    image = np.eye(40)
    assert ours.embed_images(image).equal(theirs.embed_images(image))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((3, 4, 5)), "shape (3, 4, 5)"),
        (np.full((4, 4), np.nan), "floats"),
        (np.zeros((4, 4), dtype=np.int32), "int32"),
        (3, "type int"),
        ("nothing.png", "nothing.png"),
        ([], "no image"),
    ],
    ids=str,
)
def test_what_is_no_image_is_one_line(model: Model, image: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        model.embed_images(image)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_look_for_is_one_line(model: Model) -> None:
    image = np.eye(40)
    with pytest.raises(InputError, match="no phrase was given"):
        model.ground(image, [])
    with pytest.raises(InputError, match="no class was given"):
        model.zero_shot(image, {})
    for k in (0, -1):
        with pytest.raises(InputError, match=f"k={k}: ask for 1 or more"):
            model.retrieve(image, "There is an effusion.", k=k)


def test_a_device_that_is_not_there_is_one_line(short_run: Path) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(InputError, match=f"device={device}: .*: give cpu") as caught:
            load(short_run, checkpoint="last", device=device)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("report", ["", "   ", "___", "COMPARISON: None."])
def test_what_is_no_report_is_one_line(model: Model, report: str) -> None:
    with pytest.raises(InputError, match="a report of which text policy"):
        model.embed_reports(report)


def test_the_package_is_imported_without_torch() -> None:
    words = "import sys, distributed_pretrain; print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == "False"
