"""Which images a command line means."""

import os
from pathlib import Path

import pytest
from PIL import Image

from sanet.inference.inputs import find_images
from sanet.structures import UsageError


def test_globs_and_files(folder):
    given = [str(folder / "*.png"), str(folder / "b.jpg"), str(folder / "a.png")]
    assert list(find_images(given, folder / "out")) == [folder / "a.png", folder / "b.jpg"]


def test_results_that_would_overwrite_one_another_are_refused(folder):
    Image.new("RGB", (40, 40)).save(folder / "a.jpg")
    with pytest.raises(UsageError, match=r"a\.(png|jpg) and .*a\.(jpg|png)"):
        find_images([str(folder)], folder / "out")


def test_linked_folders_are_gone_through_once(folder, tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "more" / "d.png")
    for name in ("linked", "linked-again"):
        (folder / name).symlink_to(tmp_path / "more")
    (folder / "deep" / "round").symlink_to(folder)
    names = ["a.png", "b.jpg", "deep/c.bmp", "linked/d.png"]
    assert list(find_images([str(folder)], folder / "out")) == [folder / name for name in names]


def test_an_empty_name_is_not_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="empty"):
        find_images(["a.png", ""], folder / "out")


@pytest.mark.parametrize("given", ["*.gif", "nothing.png"])
def test_an_input_without_images_is_named(folder, given):
    with pytest.raises(UsageError, match=given.replace("*", r"\*")):
        find_images([str(folder / "a.png"), str(folder / given)], folder / "out")


def test_a_file_that_does_not_exist_is_said_to(folder):
    with pytest.raises(UsageError, match="does not exist") as caught:
        find_images([str(folder / "nosuch.png")], folder / "out")
    assert ".jpg" not in str(caught.value)


def test_brackets_in_a_name_are_no_pattern(folder):
    (folder / "a.png").rename(folder / "photo[1].png")
    (folder / "b.jpg").rename(folder / "photo1.jpg")
    assert list(find_images([str(folder / "photo[1].png")], folder / "out")) == [folder / "photo[1].png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_and_devices_in_a_folder_are_no_images(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / "endless.png").symlink_to("/dev/zero")
    assert len(find_images([str(folder)], folder / "out")) == 3


def images(folder, *places):
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(folder / place)


@pytest.mark.parametrize(
    ("places", "given", "named"),
    [
        (["images/a.jpg", "masks/a.png"], ["photos"], "photos/masks"),
        (["a.jpg", "Labels/a.png"], ["photos"], "photos/Labels"),
        (["x/train/a.png", "x/trainannot/a.png"], ["photos"], "photos/x/trainannot"),
        (["JPEGImages/a.jpg", "SegmentationClass/a.png"], ["photos"], "photos/SegmentationClass"),
        (["leftImg8bit/a.png", "gtFine/b/a.png"], ["photos"], "photos/gtFine"),
        (["images/val/a.jpg", "ground_truth/val/a.png"], ["photos"], "photos/ground_truth"),
        (["a.jpg", "a_mask.png", "b.jpg"], ["photos"], "photos/a_mask.png"),
        (["x/a.tif", "x/a-label.tif"], ["photos"], "photos/x/a-label.tif"),
        (["images/a.jpg", "masks/m.png"], ["photos/**/*.*g"], "photos/masks"),
        (["images/a.jpg", "masks/m.png"], ["photos/images/a.jpg", "photos/masks/m.png"], "photos/masks"),
    ],
)
def test_masks_beside_the_images_are_not_labelled_along(tmp_path, monkeypatch, places, given, named):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "photos", *places)
    with pytest.raises(UsageError, match=f"^{named} "):
        find_images(given, Path("out"))


def test_masks_that_are_named_and_folders_with_such_a_name_above_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "labels", "masks/a.png", "images/b.png", "gtx/c.png")
    assert set(find_images(["labels/masks"], Path("out"))) == {Path("labels/masks/a.png")}
    assert set(find_images(["labels/masks/*.png"], Path("out"))) == {Path("labels/masks/a.png")}
    images(tmp_path / "mine", "a_mask.png", "b.png")  # someone in a mask
    assert len(find_images(["mine"], Path("out"))) == 2
    found = set(find_images(["labels/images", "labels/gtx"], Path("out")))
    assert found == {Path("labels/images/b.png"), Path("labels/gtx/c.png")}
