from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sanet.inference.drawing import (
    BAND,
    IGNORED,
    WRONG,
    colorize,
    error_map,
    overlay,
    palette_image,
    shares,
    with_legend,
)
from sanet.structures import LabelSet

LABELS = LabelSet(("sky", "road", "car", "pole"), ((70, 130, 180), (128, 64, 128), (0, 0, 142), (200, 160, 60)))


@pytest.fixture
def mask() -> NDArray[np.int64]:
    """(40, 60): sky, road and car in bands, a corner ignored, no pole."""
    mask = np.zeros((40, 60), dtype=np.int64)
    mask[10:30], mask[30:] = 1, 2
    mask[:5, :8] = LABELS.ignore_index
    return mask


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_a_saved_palette_image_has_the_indices_and_the_colours(tmp_path: Path, mask: NDArray[np.int64]) -> None:
    palette_image(mask, LABELS).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as saved:
        assert saved.mode == "P"
        np.testing.assert_array_equal(np.array(saved), mask)
        np.testing.assert_array_equal(np.array(saved.convert("RGB")), colorize(mask, LABELS))


@pytest.mark.parametrize("ignore_index", [-1, 255, 1000])
def test_an_ignore_index_that_is_no_byte_becomes_255(ignore_index: int) -> None:
    labels = LabelSet(("a", "b"), ignore_index=ignore_index)
    image = palette_image(np.array([[0, 1, ignore_index]]), labels)
    assert np.array(image).tolist() == [[0, 1, 255]]


def test_256_classes_fill_the_palette() -> None:
    labels = LabelSet(tuple(str(index) for index in range(256)), ignore_index=-1)
    mask = np.arange(256).reshape(16, 16)
    np.testing.assert_array_equal(np.array(palette_image(mask, labels)), mask)
    with pytest.raises(ValueError, match="256 indices"):
        palette_image(np.array([[0, -1]]), labels)


def test_colorize_gives_each_pixel_the_colour_of_its_class() -> None:
    colors = colorize(np.array([[0, 3], [255, 1]], dtype=np.uint8), LABELS)
    assert colors.dtype == np.uint8
    assert [tuple(color) for color in colors.reshape(-1, 3)] == [
        LABELS.colors[0], LABELS.colors[3], IGNORED, LABELS.colors[1],
    ]  # fmt: skip


def test_overlay_is_the_picture_at_opacity_0_and_the_colours_at_1(
    image: NDArray[np.uint8], mask: NDArray[np.int64]
) -> None:
    labelled = mask != LABELS.ignore_index
    np.testing.assert_array_equal(overlay(image, mask, LABELS, 0), image)
    opaque = overlay(image, mask, LABELS, 1)
    np.testing.assert_array_equal(opaque[labelled], colorize(mask, LABELS)[labelled])
    np.testing.assert_array_equal(opaque[~labelled], image[~labelled])


def test_overlay_is_an_even_blend_inside_and_stronger_along_contours(
    image: NDArray[np.uint8], mask: NDArray[np.int64]
) -> None:
    blend = overlay(image, mask, LABELS, 0.5)
    color = np.array(LABELS.colors[1], dtype=float)
    np.testing.assert_allclose(blend[20, 30], (image[20, 30] + color) / 2, atol=0.5)
    for row in (10, 29):
        np.testing.assert_allclose(blend[row, 30], image[row, 30] / 8 + color * 7 / 8, atol=0.5)


def test_an_image_of_several_bands_is_drawn_as_one() -> None:
    """Against the definition, over the whole image at once."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (2 * BAND + 30, 50, 3), dtype=np.uint8)
    mask = np.kron(generator.integers(0, 4, (len(image) // 10 + 1, 5)), np.ones((10, 10), np.int64))[: len(image)]
    mask[::7] = LABELS.ignore_index
    beside = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        differs = np.diff(mask, axis=axis) != 0
        beside |= np.insert(differs, 0, False, axis) | np.insert(differs, differs.shape[axis], False, axis)
    weight = np.where(beside, 1 - 0.7**3, 0.3) * (mask != LABELS.ignore_index)
    blend = image + weight[..., None] * (colorize(mask, LABELS) - image.astype(float))
    np.testing.assert_allclose(overlay(image, mask.astype(np.uint8), LABELS, 0.3), blend, atol=0.51)
    labelled = mask[mask != LABELS.ignore_index]
    assert shares(mask, LABELS) == pytest.approx({LABELS.names[k]: (labelled == k).mean() for k in range(4)})
    drawn = np.array(with_legend(image, LABELS, {"car": 1.0}))
    np.testing.assert_array_equal(drawn[: len(image), :50], image)
    mask[-1, -1] = 77
    with pytest.raises(ValueError, match="77"):
        overlay(image, mask, LABELS)


def test_shares_are_of_the_labelled_pixels_biggest_first(mask: NDArray[np.int64]) -> None:
    found = shares(mask, LABELS)
    assert list(found) == ["road", "car", "sky"]
    assert sum(found.values()) == pytest.approx(1)
    assert found["sky"] == pytest.approx((600 - 40) / (2400 - 40))
    assert shares(np.full((2, 2), LABELS.ignore_index), LABELS) == {}


@pytest.mark.parametrize("size", [(64, 64), (480, 360), (300, 900), (1600, 200), (4000, 3000)])
def test_a_legend_leaves_the_picture_alone_and_shows_the_colours(size: tuple[int, int]) -> None:
    width, height = size
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    result = np.array(with_legend(picture, LABELS, {"car": 0.2, "sky": 0.8, "pole": 0.0}))
    np.testing.assert_array_equal(result[:height, :width], picture)
    strip = result[:, width:]
    rows = [np.flatnonzero((strip == color).all(axis=2).any(axis=1)) for color in LABELS.colors]
    assert len(rows[1]) == len(rows[3]) == 0, "road and pole are not present"
    assert rows[0].max() < rows[2].min(), "the biggest share comes first"
    assert len(rows[0]) > 0.02 * (width * height) ** 0.5, "the swatches grow with the picture"
    for edge in (strip[:, -2:], strip[-2:]):
        assert (edge == 255).all(), "nothing is cut off"


def test_a_legend_of_many_classes_takes_several_columns() -> None:
    labels = LabelSet(tuple(f"class {index}" for index in range(60)))
    legend = with_legend(np.zeros((64, 64, 3), dtype=np.uint8), labels, dict.fromkeys(labels.names, 1 / 60))
    assert legend.height < 300
    visible = {color for _, color in legend.crop((64, 0, *legend.size)).getcolors(2**24) or []}
    assert set(labels.colors) <= visible


@pytest.mark.parametrize(("size", "classes"), [((640, 360), 4), ((1280, 720), 150), ((1920, 1080), 256)])
def test_a_legend_without_shares_has_all_classes_in_their_order(size: tuple[int, int], classes: int) -> None:
    """However many there are, beside a picture of a usual size it is no wider than that."""
    labels, (width, height) = LabelSet(tuple(f"class {index}" for index in range(classes)), ignore_index=-1), size
    legend = np.array(with_legend(np.zeros((height, width, 3), dtype=np.uint8), labels, None))
    assert legend.shape[0] == height
    assert width < legend.shape[1] <= 2 * width
    strip = legend[:, width:].astype(int) @ (65536, 256, 1)
    swatches = [np.argwhere(strip == np.dot(color, (65536, 256, 1))).min(axis=0) for color in labels.colors[1:-1]]
    assert [(column, row) for row, column in swatches] == sorted((column, row) for row, column in swatches)


def legend_of(name: str) -> NDArray[np.uint8]:
    labels = LabelSet(("other", name))
    return np.array(with_legend(np.zeros((64, 64, 3), np.uint8), labels, {name: 1.0}))


def test_names_of_other_alphabets_can_be_read_and_others_are_numbers() -> None:
    for one, other in (("ä", "ö"), ("д", "л"), ("λ", "π")):
        assert not np.array_equal(legend_of(one), legend_of(other))
    assert np.array_equal(legend_of("道路"), legend_of("class 1"))


def test_no_class_no_legend() -> None:
    assert with_legend(np.zeros((5, 7, 3), dtype=np.uint8), LABELS, {}).size == (7, 5)


def test_the_error_map_marks_the_wrong_pixels_and_no_ignored_one(
    image: NDArray[np.uint8], mask: NDArray[np.int64]
) -> None:
    prediction = np.random.default_rng(1).integers(0, 4, mask.shape)
    errors = error_map(image, mask, prediction, LABELS)
    ignored = mask == LABELS.ignore_index
    np.testing.assert_array_equal((errors == WRONG).all(axis=2), (mask != prediction) & ~ignored)
    np.testing.assert_array_equal((errors == IGNORED).all(axis=2), ignored)
    correct = errors[mask == prediction]
    assert (correct == correct[:, :1]).all(), "correct pixels are grey"
    assert correct.max() <= 150, "and dark, even where the picture is white"


@pytest.mark.parametrize("value", [4, 254, -1])
def test_a_value_that_is_no_class_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="classes are 0 to 3"):
        colorize(np.array([[0, value]]), LABELS)


def test_sizes_and_opacities_that_do_not_fit_are_refused(image: NDArray[np.uint8], mask: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match="shape"):
        overlay(image[1:], mask, LABELS)
    with pytest.raises(ValueError, match="shape"):
        error_map(image, mask, mask[:, 1:], LABELS)
    with pytest.raises(ValueError, match="shape"):
        colorize(image.astype(np.int64) % 4, LABELS)
    with pytest.raises(ValueError, match="opacity 50"):
        overlay(image, mask, LABELS, 50)
