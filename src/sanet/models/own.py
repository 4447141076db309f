"""The package's own model: a SANet for streets seen from a car, whose card is ``OWN_MODEL / "README.md"``."""

from __future__ import annotations

from pathlib import Path

OWN_MODEL = Path(__file__).parent / "camvid"
