import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_shards.images.content import look_at
from data_shards.images.conversion import convert_image, convert_mask, fitted_size
from data_shards.images.refusals import BadImageError

Pixels = NDArray[np.uint8]


def radiograph(width: int, height: int) -> Pixels:
    across = np.linspace(0, 4 * np.pi, width)
    down = np.linspace(0, 3 * np.pi, height)
    wave = np.sin(across)[None, :] * np.cos(down)[:, None]
    return (127.5 + 100 * wave).astype(np.uint8)


def save(pixels: NDArray[np.generic], path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def decoded(payload: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(payload)))


def test_the_longest_side_is_bounded_and_nothing_is_enlarged() -> None:
    assert fitted_size(3056, 2544, 320) == (320, 266)
    assert fitted_size(200, 100, 320) == (200, 100)
    assert fitted_size(5000, 1, 320) == (320, 1)


def test_a_large_jpeg_shrinks_as_a_plain_antialiased_resize_does(tmp_path: Path) -> None:
    path = save(radiograph(1600, 1200), tmp_path / "a.jpg")
    jpeg, size, original, _ = convert_image(path, longest_side_px=320, jpeg_quality=95)
    assert (size, original) == ((320, 240), (1600, 1200))
    with Image.open(path) as image:
        plain = np.asarray(image.resize((320, 240), Image.Resampling.BICUBIC))
    difference = np.abs(decoded(jpeg).astype(int) - plain)
    assert difference.mean() < 1
    assert difference.max() < 8


def test_fine_stripes_turn_grey_instead_of_aliasing(tmp_path: Path) -> None:
    stripes = np.zeros((960, 960), np.uint8)
    stripes[:, ::2] = 255
    path = save(stripes, tmp_path / "a.png")
    jpeg, *_ = convert_image(path, longest_side_px=320, jpeg_quality=95)
    # The border's filter is cut and holds more of one stripe than of the other.
    interior = decoded(jpeg)[:, 1:-1].astype(int)
    assert np.abs(interior - 127).max() <= 4


def test_pixel_sums_are_those_of_the_stored_jpeg(tmp_path: Path) -> None:
    path = save(radiograph(500, 400), tmp_path / "a.png")
    jpeg, *_ = convert_image(path, longest_side_px=320, jpeg_quality=60)
    sums, pixels = look_at(jpeg).sums, decoded(jpeg).astype(np.int64)
    assert sums.count == pixels.size
    assert sums.total == pixels.sum()
    assert sums.total_of_squares == (pixels**2).sum()


def test_sixteen_bits_are_scaled_rather_than_clipped(tmp_path: Path) -> None:
    grey = radiograph(64, 64)
    path = save(grey.astype(np.uint16) * 257, tmp_path / "a.png")
    jpeg, *_ = convert_image(path, longest_side_px=320, jpeg_quality=100)
    assert np.abs(decoded(jpeg).astype(int) - grey).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colour_becomes_grey_and_transparency_is_ignored(tmp_path: Path, mode: str) -> None:
    grey = radiograph(64, 64)
    image = Image.fromarray(grey).convert(mode)
    if mode.endswith("A"):
        image.putalpha(7)
    image.save(tmp_path / "a.png")
    jpeg, *_ = convert_image(tmp_path / "a.png", longest_side_px=320, jpeg_quality=100)
    assert decoded(jpeg).shape == (64, 64)
    assert np.abs(decoded(jpeg).astype(int) - grey).max() <= 4


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400), dtype=np.uint8)
    path = save(noise, tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BadImageError, match="truncated or damaged") as error:
        convert_image(path, longest_side_px=100, jpeg_quality=95)
    assert str(path) in str(error.value)


def test_missing_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="missing image"):
        convert_image(tmp_path / "none.jpg", longest_side_px=100, jpeg_quality=95)
    (tmp_path / "text.jpg").write_text("not pixels")
    with pytest.raises(BadImageError, match="not a JPEG, PNG, TIFF, BMP or DICOM"):
        convert_image(tmp_path / "text.jpg", longest_side_px=100, jpeg_quality=95)


def test_an_image_error_survives_the_way_out_of_a_worker(tmp_path: Path) -> None:
    error = BadImageError(tmp_path / "a.jpg", "missing image", "restore the file")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reason) == (str(error), error.reason)


@pytest.mark.parametrize("inside", [1, 255])
def test_masks_are_scaled_by_the_nearest_pixel_and_stay_binary(tmp_path: Path, inside: int) -> None:
    mask = np.zeros((200, 100), np.uint8)
    mask[100:, :50] = inside
    path = save(mask, tmp_path / "m.png")
    pixels = decoded(convert_mask(path, original=(100, 200), stored=(50, 100)))
    assert np.array_equal(pixels, np.where(mask[::2, ::2] > 0, 255, 0))


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    path = save(np.zeros((20, 10), np.uint8), tmp_path / "m.png")
    with pytest.raises(BadImageError, match="10 x 20 px over an image of 10 x 30 px"):
        convert_mask(path, original=(10, 30), stored=(5, 15))


def test_a_mask_that_was_saved_as_jpeg_keeps_its_edges(tmp_path: Path) -> None:
    inside = np.zeros((80, 80), np.uint8)
    inside[20:60, 30:70] = 255
    Image.fromarray(inside).save(tmp_path / "mask.jpg", quality=75)
    stored = decoded(convert_mask(tmp_path / "mask.jpg", original=(80, 80), stored=(80, 80)))
    assert np.array_equal(stored, inside)
