"""A model, what it says of some images, and processes that serve it."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
from caller import Caller, png

import sanet

# As the command, but for how long it waits for a head.
COMMAND = """
import sys
from sanet.cli.main import main
from sanet.serve import server
server.HEAD = 2
sys.exit(main(["serve", *sys.argv[1:]]))
"""
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


@contextmanager
def serving(*options):
    """A process, and where it answers."""
    words = [sys.executable, "-c", COMMAND, "streets", "--port", "0", "--device", "cpu", "--shorter_side", "0"]
    with subprocess.Popen([*words, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            process.stdout.readline()
            yield process, Caller(process.stdout.readline().split("http://")[1].split(",")[0])
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served():
    limits = {"largest_megabytes": 1, "largest_megapixels": 0.5, "seconds": 8, "waiting": 8}
    with serving(*(word for name, limit in limits.items() for word in (f"--{name}", str(limit)))) as found:
        yield found
