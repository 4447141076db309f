"""Saved models: a directory in the Hugging Face layout, kept, loaded and shared with that library's own mixin.

The directory holds ``config.json`` (what the network is, how it is fed, and the sum of its weights),
``model.safetensors`` and ``README.md`` (the model card). Loading one runs no code of it and unpickles nothing, and
takes memory only for what its files are found to hold.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from hashlib import file_digest
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from torch import Tensor

from sanet.config import MODEL
from sanet.models.unlike import FeatureStatistics
from sanet.record import FORMAT, enumerated, read_config, read_weights
from sanet.structures import SanetError, UsageError, first_line

HUB = "hf:"
# Models that come with the package, by their names: streets is a SANet for streets seen from a car.
BUNDLED = {"streets": Path(__file__).parent / "streets"}
NAMES = (CONFIG_NAME, SAFETENSORS_SINGLE_FILE)

CARD = """---
{{ card_data }}
---

# {{ model_name | default("A segmentation model", true) }}

A model for semantic segmentation, made with `sanet`
([Squeeze-and-Attention Networks for Semantic Segmentation](https://arxiv.org/abs/1909.03402), CVPR 2020).

```python
import sanet
mask = sanet.Predictor("path/to/this/directory")(image)  # (H, W) class indices
```

{{ details | default("", true) }}
"""


class Files(NamedTuple):
    """The two files of a saved model that loading reads."""

    config: Path
    weights: Path


class StoredModel(
    PyTorchModelHubMixin,
    library_name="sanet",
    pipeline_tag="image-segmentation",
    tags=["semantic-segmentation", "squeeze-and-attention"],
    paper_url="https://arxiv.org/abs/1909.03402",
    model_card_template=CARD,
):
    """Adds ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` to a network.

    Unlike its parent it writes what the model is now, reads safetensors only, believes nothing of what it reads, and
    fetches no backbone weights that the file is about to replace.
    """

    statistics: FeatureStatistics | None = None  # of the features of its training images, where these are known

    def description(self) -> dict[str, Any]:
        """The arguments that make such a model, as JSON has them; ``options`` are all there are."""
        raise NotImplementedError

    def _save_pretrained(self, save_directory: Path) -> None:
        module, _, name = str(self.network).partition(":")  # type: ignore[attr-defined]
        if module == "__main__" or "." in name:
            raise UsageError(
                f"the network {self.network} cannot be loaded again from a file, as no module has it; "  # type: ignore[attr-defined]
                "define it at the top of a module of its own, and import it from there"
            )
        super()._save_pretrained(save_directory)
        with (save_directory / SAFETENSORS_SINGLE_FILE).open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        content = {"format": FORMAT, **self.description(), "weights_sha256": digest}
        if self.statistics is not None:
            content["features"] = self.statistics.plain()
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
        (save_directory / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, map_location: str = "cpu", **download: Any
    ) -> Self:
        """Read a model from its directory or, by that library's own convention, a repository OWNER/NAME of the hub.

        Args:
            pretrained_model_name_or_path: the one or the other.
            map_location: device of the model.
            **download: ``revision``, ``token`` and whatever else ``huggingface_hub.hf_hub_download`` takes.

        Raises:
            SanetError: see ``load_model``.
        """
        name = str(pretrained_model_name_or_path)
        known = Path(name).is_dir() or name.startswith(HUB)
        return cls.read(saved_files(name if known else HUB + name, **download), map_location)

    @classmethod
    def read(cls, files: Files, device: str = "cpu") -> Self:
        """The model in these files, in evaluation mode.

        Raises:
            SanetError: they do not hold one, or not the whole of it.
        """
        arguments, digest = read_config(files.config)
        temperature, statistics = arguments.pop("temperature"), arguments.pop("features")
        try:
            with torch.device("meta"):
                empty = cls(**arguments)
            wanted: dict[str, Tensor] = empty.state_dict()  # type: ignore[attr-defined]
            channels: int = empty.backbone.levels[-1].channels  # type: ignore[attr-defined]
            known = None if statistics is None else FeatureStatistics.read(statistics, channels)
        except Exception as error:  # heads and backbones of other libraries fail each in their own way
            raise SanetError(f"{files.config}: {first_line(error)}") from error
        tensors = read_weights(files.weights, wanted, digest)
        model = cls(**arguments)
        model.load_state_dict(tensors)  # type: ignore[attr-defined]
        model.temperature, model.statistics = temperature, known  # type: ignore[attr-defined]
        return model.to(device).eval()  # type: ignore[attr-defined, no-any-return]


def saved_files(model: str | Path, **download: Any) -> Files:
    """Where the files of a saved model lie: in its directory or, for ``hf:OWNER/NAME``, where they are downloaded to.

    Raises:
        SanetError: there is no such model.
    """
    name = model.as_posix() if isinstance(model, Path) else model
    if name.startswith(HUB):
        try:
            repository = name.removeprefix(HUB)
            return Files(*(Path(hf_hub_download(repository, file, **download)) for file in NAMES))
        except Exception as error:  # that library's errors and those of its connection have no class in common
            raise SanetError(f"{name} could not be downloaded from the hub: {first_line(error)}") from error
    if name in BUNDLED and not os.path.exists(name):
        return Files(*(BUNDLED[name] / file for file in NAMES))
    if not os.path.isdir(model):  # unlike Path.is_dir, of any text
        raise missing(Path(model))
    return Files(*(Path(model, file) for file in NAMES))


def missing(model: Path) -> SanetError:
    """The error for a model that is not there; it names those that lie beside its place."""
    if os.path.isfile(model):
        return SanetError(
            f"{model} is a file; give the folder of a saved model (exported files: predict, evaluate, serve)"
        )
    names: list[str] = []
    with suppress(OSError, ValueError):
        places = sorted(model.parent.iterdir())
        names = [place.name for place in places if (place / MODEL).is_dir() or (place / CONFIG_NAME).is_file()]
    named_as_there = re.fullmatch(r"[\w.-]+/[\w.-]+", str(model))
    hub = f"; for a model of the Hugging Face hub write {HUB}{model}" if named_as_there else ""
    return SanetError(f"no folder {model}; runs and models in {model.parent}: {enumerated(names) or 'none'}{hub}")


def short_names(models: Sequence[str | Path]) -> list[str]:
    """What to call saved models beside each other: the last parts of their paths, as many as tell them apart.

    The ``model`` folder of a run is left out.

    Raises:
        UsageError: one is named twice.
    """
    paths = [Path(model).absolute() for model in models]
    parts = [path.parts[:-1] if path.name == MODEL else path.parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"{', '.join(map(str, models))}: a model is named twice")


def escaped(text: str) -> str:
    """Markdown that shows a text as it is, also in a table and where the Markdown becomes HTML."""
    return re.sub(r"([\\`|*_~$\[\]])", r"\\\1", escape(text, quote=False))
