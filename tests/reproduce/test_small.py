"""The datasets of ``reproduce.small``: what is in which split, and which values of their masks are which class."""

import numpy as np
import pytest
import torch
from PIL import Image
from reproduce.small import ANIMALS, Animals, Cracks, Retina

SPLITS = ("train", "val", "test")


def write(path, values, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path, kind)


@pytest.fixture
def animals(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = {"train": ["a", "b"], "val": ["c", "d", "e"]}
    for split, members in names.items():
        (lists / f"{split}.txt").write_text("\n".join(members))
        for name in members:
            write(tmp_path / "JPEGImages" / f"{name}.jpg", np.zeros((2, 3, 3)))
            write(tmp_path / "SegmentationClass" / f"{name}.png", [[0, 8, 10], [17, 255, 3]])
    return Animals(str(tmp_path))


@pytest.fixture
def cracks(tmp_path):
    for number in range(118):
        write(tmp_path / "images" / f"{number:03}.jpg", np.zeros((1, 2, 3)))
        write(tmp_path / "masks" / f"{number:03}.png", [[0, 255]])
    return Cracks(str(tmp_path))


@pytest.fixture
def retina(tmp_path):
    for number in range(21, 41):
        write(tmp_path / "images" / f"{number}.tif", np.zeros((2, 2, 3)))
        write(tmp_path / "masks" / f"{number}.gif", [[0, 255], [0, 255]])
        write(tmp_path / "fov" / f"{number}.gif", [[255, 255], [0, 0]])
    return Retina(str(tmp_path))


@pytest.mark.parametrize(("name", "counts"), [("animals", (2, 2, 1)), ("cracks", (72, 16, 25)), ("retina", (12, 3, 5))])
def test_no_image_is_in_two_splits(name, counts, request):
    source = request.getfixturevalue(name)
    names = {split: [record.name for record in source.records(split)] for split in SPLITS}
    assert tuple(map(len, names.values())) == counts
    assert len({name for members in names.values() for name in members}) == sum(counts)


@pytest.mark.parametrize(
    ("name", "mask"),
    [("animals", [[0, 1, 2], [6, 255, 255]]), ("cracks", [[0, 1]]), ("retina", [[0, 1], [255, 255]])],
)
def test_classes_are_what_the_masks_store(name, mask, request):
    source = request.getfixturevalue(name)
    sample = source.read(source.records("val")[0])
    assert torch.equal(sample.mask, torch.tensor(mask))
    assert sample.image.shape == (3, *sample.mask.shape)
    assert list(ANIMALS.values())[6] == "sheep"
