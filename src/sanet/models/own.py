"""The package's own model: a SANet for streets seen from a car, whose card is ``OWN_MODEL / "README.md"``."""

from pathlib import Path

OWN_MODEL = Path(__file__).parent / "camvid"
# The shorter side of pictures that it has to see: things must be as large as in training.
OWN_SIDE = 720
