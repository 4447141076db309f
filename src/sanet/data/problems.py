"""What can be wrong with a data set, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sanet.data.decoding import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Problem:
    """A kind of fault: what it is, what to do about it, and whether training must wait for that."""

    title: str
    remedy: str
    severity: Literal["error", "warning"] = "error"


EMPTY = Problem("split without pictures", f"add pictures ({', '.join(IMAGE_SUFFIXES)}), or take the split away")
LISTED_TWICE = Problem("listed more than once", "take the repeated lines out of the list")
NO_FILES = Problem("listed, but there is neither a picture nor a mask", "add both, or take the line out of the list")
NO_TEXT = Problem("file name that is no UTF-8 text, as from an old archive", "rename the picture and its mask")
AMBIGUOUS = Problem("files that differ in their suffix only", "keep the one that is meant")
NO_MASK = Problem("picture without a mask", "add a mask called like the picture, or take the picture out")
NO_PICTURE = Problem("mask without a picture", "add a picture called like the mask, or take the mask out")
UNREADABLE = Problem("file that cannot be read", "replace it, or take it out together with its partner")
SIZES = Problem("picture and mask differ in size", "export the mask at the size of the picture")
ROTATED = Problem(
    "mask that fits its picture only before the EXIF rotation",
    "a picture is turned upright, as its EXIF orientation says, so turn the mask alike",
)
COLORS = Problem(
    "colours where class numbers are expected",
    'save the mask as greyscale or palette PNG, or, for your own folder, set data.colors and data.mask_format "color"',
)
LOSSY = Problem("mask in a lossy format, which changes labels", "export the mask anew as PNG; converting is too late")
SMOOTHED = Problem(
    "mask with many stray values, as from anti-aliasing, smooth resizing or a lossy format",
    "export the mask anew as PNG without anti-aliasing; resize masks by the nearest neighbour only",
)
UNKNOWN = Problem(
    "value that is no class",
    "name all classes in data.classes, in the order of their numbers (or all colours in data.colors), name the value "
    "that counts nowhere (data.ignore_index or data.ignore_color), or correct the mask",
)
SHIFTED = Problem(
    "labels that look shifted by one: no mask of the data set has a 0",
    "subtract 1 from every mask of the data set, or name the class that is meant by 0 first in data.classes",
)
BINARY = Problem(
    "255 in masks of two classes, and no mask of the data set has a 1",
    "a mask stored as 0 and 255: save 1 in place of 255",
)
UNLABELLED = Problem("mask without a labelled pixel", "label it, or take it out with its picture", "warning")
ABSENT = Problem("class that no picture of train has", "it cannot be learnt; move pictures with it there", "warning")
SHARED = Problem("picture that is in two splits", "leave it in one of them: scores would flatter the model")
REPEATED = Problem(
    "picture that is there twice", "leave out one of the two, unless the data set was published so", "warning"
)
