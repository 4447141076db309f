"""Built-in dataset: small procedural landscapes in which a thing is named by its surroundings.

Nothing in a thing's own pixels tells its class. A disc or a box has the same sizes, colours, patterns and shading
wherever it is; what lies behind its centre names it and, in the sky, whether sun or moon is out:

====  ==============  ===============  =========  ========
..    sky under sun   sky under moon   on meadow  on water
====  ==============  ===============  =========  ========
disc  balloon         lantern          ball       buoy
box   kite            lantern          crate      raft
====  ==============  ===============  =========  ========

Sun and moon count as sky and may be a whole image away from what they name; either may hang in a sky of any colour.
So the things ask for a network that looks far, and the posts, three to five pixels thin, for one that looks closely.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sanet.data.source import Record, Source
from sanet.structures import LabelSet, Sample

Array = NDArray[np.float64]
Surfaces = NDArray[np.int64]
Window = tuple[slice, slice]

HEIGHT, WIDTH = 128, 160
COUNTS = {"train": 320, "val": 48, "test": 96}
LABELS = LabelSet(
    ("sky", "meadow", "water", "balloon", "kite", "lantern", "ball", "crate", "buoy", "raft", "post"),
    (
        (158, 206, 238), (126, 176, 92), (52, 104, 176), (222, 62, 62), (246, 150, 196), (255, 220, 70),
        (244, 134, 32), (142, 86, 48), (126, 56, 168), (64, 196, 184), (48, 48, 52),
    ),
)  # fmt: skip
SKY, MEADOW, WATER, POST = (LABELS.names.index(name) for name in ("sky", "meadow", "water", "post"))

# What a thing is called on the three surfaces, and in the sky when the moon is out.
NAMES = {"disc": ("balloon", "ball", "buoy", "lantern"), "box": ("kite", "crate", "raft", "lantern")}
# Pixels between the centre of a thing and the next surface or the border of the image.
MARGIN = 7

# Zenith, horizon, meadow and water; RGB in [0, 1]. An image mixes these palettes.
PALETTES = np.array(
    [
        [[0.38, 0.60, 0.86], [0.80, 0.88, 0.93], [0.47, 0.62, 0.30], [0.24, 0.46, 0.62]],
        [[0.45, 0.50, 0.74], [0.96, 0.78, 0.66], [0.56, 0.58, 0.34], [0.42, 0.46, 0.62]],
        [[0.36, 0.33, 0.56], [0.90, 0.60, 0.52], [0.42, 0.44, 0.32], [0.38, 0.34, 0.52]],
        [[0.58, 0.64, 0.70], [0.82, 0.84, 0.84], [0.52, 0.56, 0.42], [0.42, 0.52, 0.56]],
        [[0.30, 0.52, 0.62], [0.90, 0.86, 0.70], [0.68, 0.60, 0.38], [0.26, 0.50, 0.54]],
    ]
)
SUN, MOON = np.array([1.0, 0.86, 0.45]), np.array([0.97, 0.98, 1.0])
Y, X = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)


class Scenes(Source):
    """Images made on demand; each follows from (seed, split, index) alone.

    Args:
        seed: seed of all images, 0 or more.
    """

    labels = LABELS
    splits = tuple(COUNTS)

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def records(self, split: str) -> list[Record]:
        """The images of one split; those of different splits differ."""
        return [Record(f"scene-{split}-{index:05d}") for index in range(COUNTS[split])]

    def read(self, record: Record) -> Sample:
        """Image (3, H, W) uint8 and mask (H, W) int64, of ``HEIGHT`` by ``WIDTH`` pixels."""
        _, split, index = record.name.split("-")
        sequence = np.random.SeedSequence((self.seed, self.splits.index(split), int(index)))
        canvas = draw(np.random.default_rng(sequence))
        image = np.rint(canvas.image.clip(0, 1) * 255).astype(np.uint8)
        return Sample(torch.from_numpy(image), torch.from_numpy(canvas.mask), record.name)


class Light(NamedTuple):
    """Sun or moon, centred on column ``x`` and row ``y``."""

    moon: bool
    x: float
    y: float

    @property
    def slant(self) -> float:
        """Where it shines from, -1 (left) to 1: the same for all things, wherever they are."""
        return self.x / WIDTH * 2 - 1


class Thing(NamedTuple):
    """A disc or a box on one of the surfaces, centred on a column and a row, of half a side and a turn in radians."""

    shape: str
    surface: int
    x: int
    y: int
    size: float
    turn: float


class Canvas(NamedTuple):
    """What an image is painted on: RGB (3, H, W), about 0 to 1, and class indices (H, W)."""

    image: Array
    mask: Surfaces

    def paint(self, window: Window, distance: Array, color: Array, label: int) -> None:
        """Paint a shape given by its signed distance in the window, in pixels and negative inside.

        The edge softens outside the mask only: a thing's own pixels show nothing of what is behind it.
        """
        patch = self.image[:, *window]
        patch[:] = blend(patch, color, (1 - distance).clip(0, 1))
        self.mask[window][distance <= 0] = label


def draw(rng: np.random.Generator) -> Canvas:
    """One image: a landscape, the shadows of its things, then things and posts one upon the other, and grain."""
    surfaces = lay_out(rng)
    x = rng.uniform(12, WIDTH - 12)
    skyline = int((surfaces[:, int(x)] == SKY).sum())
    light = Light(bool(rng.random() < 0.5), x, rng.uniform(11, max(12, skyline - 11)))
    canvas = Canvas(paint_landscape(rng, surfaces, light), surfaces.copy())
    things = place_things(rng, surfaces, light)
    for thing in things:
        if thing.surface != SKY:
            paint_shadow(canvas, thing, surfaces, light)
    for thing in things:
        if rng.random() < 0.5:
            paint_post(rng, canvas, surfaces, light)
        paint_thing(rng, canvas, thing, light)
    canvas.image[:] += 0.02 * rng.standard_normal(canvas.image.shape, np.float32)
    return canvas


def lay_out(rng: np.random.Generator) -> Surfaces:
    """(H, W): sky over a far and a near surface; one is meadow, the other water."""
    column = X[0] / WIDTH - 0.5

    def waves() -> Array:
        phases, weights = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.2, 0.6, 3)
        uneven: Array = np.sin(2 * np.pi * np.outer(column, (1.1, 2.7, 6.1)) + phases) @ weights
        return uneven

    level = HEIGHT * rng.uniform(0.34, 0.6)
    shore = level + HEIGHT * rng.uniform(0.08, 0.3) + rng.uniform(-65, 65) * column + 4 * waves()
    if rng.random() < 0.5:
        near, far, skyline = MEADOW, WATER, np.minimum(level, shore)
    else:
        near, far, skyline = WATER, MEADOW, level + 6 * waves() + rng.uniform(-14, 14) * column
        shore = np.maximum(shore, skyline + 3)
    surfaces: Surfaces = np.where(skyline > Y, SKY, np.where(shore > Y, far, near))
    return surfaces


def paint_landscape(rng: np.random.Generator, surfaces: Surfaces, light: Light) -> Array:
    """(3, H, W), about 0 to 1: clouds and sun or moon in the sky, tufts on the meadow, ripples on the water."""
    mix = rng.dirichlet(np.full(len(PALETTES), 0.4))
    zenith, haze, grass, deep = np.tensordot(mix, PALETTES, 1) + rng.normal(0, 0.03, (4, 3))
    skyline = (surfaces == SKY).sum(axis=0)
    # From 0 to 1: down the sky, and from the horizon to the viewer's feet.
    depth = (Y / skyline.mean()).clip(0, 1)
    near = ((Y - skyline.min()) / (HEIGHT - skyline.min())).clip(0, 1)

    clouds = (noise(rng, 6, 4) + 0.5 * noise(rng, 13, 11) - rng.uniform(0.1, 0.7)).clip(0, 0.7)
    sky = paint_light(blend(blend(zenith, haze, depth), haze + 0.08, clouds), light)
    tufts = noise(rng, 9, 7) + (0.4 + 0.8 * near) * noise(rng, 80, 32)
    meadow = blend(haze, grass, 0.6 + 0.4 * near) + 0.06 * tufts
    ripples = (0.5 + near) * (noise(rng, 9, 64) + near * noise(rng, 24, 64))
    glitter = np.exp(-np.square((X - light.x) / (6 + 14 * near))) * (ripples > 0.2)
    water = blend(haze, deep, 0.4 + 0.6 * near) + 0.05 * ripples + 0.2 * glitter
    return np.where(surfaces == SKY, sky, np.where(surfaces == MEADOW, meadow, water))


def paint_light(sky: Array, light: Light) -> Array:
    """``sky`` (3, H, W) with a golden disc or a white crescent, and its glow far around it."""
    away = distance_from(light.x, light.y)
    distance = np.maximum(away - 9, 8.5 - distance_from(light.x + 4.5, light.y - 3)) if light.moon else away - 9
    color = MOON if light.moon else SUN
    # Bright as the clouds may be, sun and moon stand out.
    sky = blend(sky, color, 0.5 * np.exp(-away / 32)).clip(0, 0.84)
    return blend(sky, color, (0.5 - distance).clip(0, 1))


def distance_from(x: float, y: float) -> Array:
    """(H, W): how many pixels every pixel is away from a place."""
    distance: Array = np.sqrt(np.square(X - x) + np.square(Y - y))
    return distance


def blend(back: Array, front: Array, share: Array) -> Array:
    """(3, H, W): ``front`` laid over ``back`` by ``share`` (H, W); both are colours (3,) or images (3, H, W)."""
    back, front = (color if color.ndim == 3 else color[:, None, None] for color in (back, front))
    return back + share * (front - back)


def noise(rng: np.random.Generator, columns: int, rows: int) -> Array:
    """(H, W), about -1 to 1: smooth noise between the corners of a grid of cells."""
    return smooth(HEIGHT, rows) @ rng.uniform(-1, 1, (rows + 1, columns + 1)) @ smooth(WIDTH, columns).T


@lru_cache
def smooth(length: int, cells: int) -> Array:
    """(length, cells + 1): how much every corner counts at every pixel."""
    away = np.abs(np.arange(length)[:, None] / length * cells - np.arange(cells + 1)).clip(0, 1)
    weights: Array = 1 - away * away * (3 - 2 * away)
    return weights


def place_things(rng: np.random.Generator, surfaces: Surfaces, light: Light) -> list[Thing]:
    """Four to seven things, where there is room; each surface is as likely, whatever its area."""
    free = distance_from(light.x, light.y) > 34
    free &= (np.minimum(X, WIDTH - 1 - X) >= MARGIN) & (np.minimum(Y, HEIGHT - 1 - Y) >= MARGIN)
    for axis in (0, 1):
        for shift in (-MARGIN, MARGIN):
            free &= np.roll(surfaces, shift, axis) == surfaces
    things = []
    for surface in rng.integers(0, 3, rng.integers(4, 8)).tolist():
        places = np.flatnonzero(free & (surfaces == surface))
        if len(places):
            y, x = divmod(int(rng.choice(places)), WIDTH)
            shape = "disc" if rng.random() < 0.5 else "box"
            things.append(Thing(shape, surface, x, y, rng.uniform(10, 19), rng.uniform(-0.4, 0.4)))
            free &= distance_from(x, y) > 25
    return things


def around(x: int, y: int, reach: float) -> Window:
    """The rows and columns within ``reach`` of a place; a thing needs no more of the image."""
    return slice(max(0, int(y - reach)), int(y + reach) + 2), slice(max(0, int(x - reach)), int(x + reach) + 2)


def paint_shadow(canvas: Canvas, thing: Thing, surfaces: Surfaces, light: Light) -> None:
    """Darken the ground at the foot of a thing, away from the light."""
    window = around(thing.x, thing.y, 2.2 * thing.size)
    across = (X[window] - thing.x + 0.6 * light.slant * thing.size) / (1.1 * thing.size)
    along = (Y[window] - thing.y - 0.95 * thing.size) / (0.35 * thing.size)
    shade = 0.45 * (1.4 - np.hypot(across, along)).clip(0, 1)
    canvas.image[:, *window] *= 1 - shade * (surfaces[window] != SKY)


def paint_thing(rng: np.random.Generator, canvas: Canvas, thing: Thing, light: Light) -> None:
    """A disc or a box in two colours, shaded as if rounded."""
    window = around(thing.x, thing.y, 1.3 * thing.size + 1)
    right, down = (X[window] - thing.x) / thing.size, (Y[window] - thing.y) / thing.size
    cos, sin = np.cos(thing.turn), np.sin(thing.turn)
    across, along = cos * right + sin * down, cos * down - sin * right
    reach = np.hypot(across, along) if thing.shape == "disc" else np.maximum(abs(across), abs(along)) / 0.88
    patterns = (0 * across, np.sin(7 * across), across * along, along, abs(across) - 0.3)
    pattern = patterns[rng.integers(len(patterns))]
    color = blend(vivid(rng), vivid(rng), (pattern * thing.size + 0.5).clip(0, 1))
    facing = 0.6 * light.slant * right - 0.5 * down + 0.6 * np.sqrt((1 - right**2 - down**2).clip(0))
    rim = 0.25 * ((reach - 1) * thing.size + 2).clip(0, 1)
    name = NAMES[thing.shape][3 if thing.surface == SKY and light.moon else thing.surface]
    canvas.paint(window, (reach - 1) * thing.size, color * (0.7 + 0.4 * facing - rim), LABELS.names.index(name))


def vivid(rng: np.random.Generator) -> Array:
    """(3,): a colour of any hue, from soft to strong."""
    hue = (np.abs((rng.uniform(0, 6) + np.array([0, 4, 2])) % 6 - 3) - 1).clip(0, 1)
    color: Array = rng.uniform(0.6, 1) * (1 - rng.uniform(0.3, 0.9) * (1 - hue))
    return color


def paint_post(rng: np.random.Generator, canvas: Canvas, surfaces: Surfaces, light: Light) -> None:
    """A thin post with its foot on meadow or in water, of light or dark wood."""
    y, x = divmod(int(rng.choice(np.flatnonzero(surfaces != SKY))), WIDTH)
    height, lean = rng.uniform(22, 60), rng.uniform(-0.08, 0.08)
    window = around(x, y, height)
    aside = X[window] - x - lean * (y - Y[window])
    distance = np.maximum(abs(aside) - rng.uniform(1.5, 2.3), abs(Y[window] - y + height / 2) - height / 2)
    wood = rng.uniform(0.2, 0.9) * np.array([1, 0.88, 0.75])
    canvas.paint(window, distance, wood[:, None, None] * (1 + 0.2 * light.slant * aside.clip(-2, 2)), POST)
