"""A lab's own parts. Opening the package registers its backbone with timm; the other parts are found by their names."""

from . import backbones as backbones
