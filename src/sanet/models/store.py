"""Saved models: a directory in the Hugging Face layout, kept, loaded and shared with that library's own mixin.

The directory holds ``config.json`` (the arguments of the constructor, the labels among them),
``model.safetensors`` and ``README.md`` (the model card). Loading one runs no code of it and unpickles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file

from sanet.config import MODEL
from sanet.structures import LabelSet, SanetError, UsageError

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


class StoredModel(
    PyTorchModelHubMixin,
    library_name="sanet",
    pipeline_tag="image-segmentation",
    tags=["semantic-segmentation", "squeeze-and-attention"],
    paper_url="https://arxiv.org/abs/1909.03402",
    model_card_template=CARD,
):
    """Adds ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` to a network.

    Unlike its parent it reads safetensors only, insists that every tensor fits, and fetches no backbone weights
    that the file is about to replace.
    """

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        **model_kwargs: Any,
    ) -> Self:
        if "network" not in model_kwargs:
            raise SanetError(f"{model_id} holds no {CONFIG_NAME} of a sanet model; name the directory that does")
        try:
            labels = LabelSet(**model_kwargs.pop("labels"))
            model = cls(**{**model_kwargs, "labels": labels, "pretrained_backbone": False})
        except (KeyError, TypeError) as error:
            raise SanetError(f"the {CONFIG_NAME} of {model_id} is not one of a sanet model: {error}") from error
        directory = Path(model_id)
        try:
            if directory.is_dir():
                path = directory / SAFETENSORS_SINGLE_FILE
            else:
                path = Path(
                    hf_hub_download(
                        model_id,
                        SAFETENSORS_SINGLE_FILE,
                        revision=revision,
                        cache_dir=cache_dir,
                        force_download=force_download,
                        local_files_only=local_files_only,
                        token=token,
                    )
                )
            tensors = load_file(path, device=map_location)
        except (OSError, SafetensorError, HfHubHTTPError) as error:
            raise SanetError(f"the weights of {model_id} cannot be read: {error}") from error
        try:
            model.load_state_dict(tensors)  # type: ignore[attr-defined]
        except RuntimeError as error:
            raise SanetError(f"the weights of {model_id} do not fit its {CONFIG_NAME}: {error}") from error
        return model.eval()  # type: ignore[attr-defined, no-any-return]


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
