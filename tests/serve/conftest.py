"""A model, what it says of some images, and a process that serves it."""

import pytest
from caller import png, serving

import sanet

SIZES = ((64, 96), (96, 64), (72, 100))


@pytest.fixture(scope="session")
def predictor():
    """The bundled model, which says something else of each image, as an untrained one would not."""
    return sanet.Predictor("streets", "cpu", sanet.InferenceConfig(shorter_side=0))


@pytest.fixture(scope="session")
def images(predictor, tmp_path_factory):
    """Files of 12 images in three sizes, and the mask of each by itself, (H, W)."""
    path, found = tmp_path_factory.mktemp("images") / "image.png", []
    for number in range(12):
        path.write_bytes(png(*SIZES[number % 3], number))
        found.append((path.read_bytes(), predictor(path).mask))
    assert len({mask.tobytes() for _, mask in found}) == 12
    return found


@pytest.fixture(scope="module")
def served():
    limits = {"largest_megabytes": 1, "largest_megapixels": 0.5, "seconds": 8, "waiting": 8}
    with serving(*(word for name, limit in limits.items() for word in (f"--{name}", str(limit)))) as found:
        yield found
