"""What can be wrong with a dataset, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sanet.data.decoding import IMAGE_SUFFIXES, PALETTE_REMEDY


@dataclass(frozen=True)
class Problem:
    """A kind of fault: what it is, what to do about it, and whether training must wait for that."""

    title: str
    remedy: str
    severity: Literal["error", "warning"] = "error"


NO_SPLIT = Problem(
    "no such split, without which nothing is trained",
    "add it as a folder or a list, or remove what says the splits: then some of several images are held out",
)
SPARE = Problem("images in no split, which are not used", "name a split for them, or remove them", "warning")
EMPTY = Problem("split without images", f"add images ({', '.join(IMAGE_SUFFIXES)}), or remove the split")
LISTED_TWICE = Problem("listed or annotated more than once", "keep one of its lines or annotations")
NO_FILES = Problem("listed, but neither image nor mask exists", "add both, or remove the line from the list")
NO_TEXT = Problem("file name that is no UTF-8 text, as from an old archive", "rename the image and its mask")
AMBIGUOUS = Problem("several files that could be meant by one name", "keep the one that is meant")
NO_MASK = Problem("image without a mask", "add a mask of the same name, or remove the image")
NO_IMAGE = Problem("mask without an image", "add an image of the same name, or remove the mask")
UNREADABLE = Problem("file that cannot be read", "replace it, or remove it together with its partner")
SIZES = Problem("image and mask differ in size", "export the mask at the size of the image")
ROTATED = Problem(
    "mask that fits its image only before the EXIF rotation",
    "images are turned upright, as their EXIF orientation says; turn the mask alike",
)
COLORS = Problem(
    "colours where class numbers are expected",
    'save the mask as greyscale or palette PNG, or, for your own folder, set data.colors and data.mask_format "color"',
)
LOSSY = Problem(
    "mask in a lossy format, which changes labels",
    "export the mask again as PNG (converting is too late), or say what ranges of grey mean (data.values), as "
    "{background: [0-127], leaf: [128-255]}",
)
SMOOTHED = Problem(
    "mask with many stray values, as from anti-aliasing, smooth resizing or a lossy format",
    "export the mask again as PNG without anti-aliasing; resize masks by the nearest neighbour only",
)
UNKNOWN = Problem(
    "value that is no class",
    "name all classes in data.classes, in the order of their numbers (or all colours in data.colors), say in "
    "data.values what the value means, or that it is to be ignored, or correct the mask",
)
SHIFTED = Problem(
    "labels that look shifted by one: no mask of the dataset has a 0",
    "say what the values mean (data.values), as {1: leaf, 2: stem}, or name the class that is meant by 0 first",
)
BINARY = Problem(
    "masks of 0 and 255 alone",
    "masks stored as black and white: name two classes, or say what the two values mean: data.values",
)
ONE_BINARY = Problem(
    "mask of 0 and 255 alone among others, where 255 is ignored",
    "if 255 is meant as a class there, save that class's number in its place",
    "warning",
)
MIXED = Problem(
    "mask of 0 and 255 alone, where others have classes and no 255",
    "masks are stored in two ways: if 255 is meant as a class, save that class's number in its place; if it is to be "
    "ignored, say so, with all other values, in data.values",
)
PALETTES = Problem("palette with the colours of the classes under other numbers", PALETTE_REMEDY)
OTHER_FORMAT = Problem("image or mask in a format that is not read", f"save it as one of {', '.join(IMAGE_SUFFIXES)}")
TRANSPARENT = Problem(
    "image with transparent pixels: the colours that are stored under them are used",
    "paste it onto the background that is meant, if what is under transparency should not be used",
    "warning",
)
OUTSIDE = Problem(
    "image of values far outside the range of the training images, which are clipped",
    "check whether it is of another camera or unit; if not, set data.images.low and high to values that hold for all",
    "warning",
)
NO_LABELS = Problem("train without a labelled pixel", "label its masks; all that they hold is ignored")
ONE_CLASS = Problem(
    "split whose labelled pixels are all of one class",
    "nothing can be learnt from it, and nothing scored; check the masks and data.classes",
    "warning",
)
NOWHERE = Problem("class that no mask has", "check its number, or leave it out of data.classes", "warning")
UNLABELLED = Problem("mask without a labelled pixel", "label it, or remove it with its image", "warning")
ABSENT = Problem("class that no image of train has", "it cannot be learnt; move images with it there", "warning")
SHARED = Problem(
    "data leakage: image, or group of images, that is in two splits", "leave it in one of them, or scores are too high"
)
REPEATED = Problem("image that is there twice", "remove one of the two, unless the dataset was published so", "warning")
ALIKE = Problem(
    "image that looks like one of another split, as a copy of it or the next frame of a film does",
    "look at both; what shows the same thing belongs in one split, or scores are too high (data.group, or the lists)",
    "warning",
)
OUTLYING = Problem(
    "range of a channel that one value far from all others decides, as where nothing was measured",
    "set data.images.low and high to the range of the others, and ignore these pixels in the masks",
    "warning",
)
ODD = Problem("annotation that is odd", "correct it where it is not meant", "warning")
