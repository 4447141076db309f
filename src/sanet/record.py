"""The files of a saved model, read with distrust: what they say is checked before anything is built of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sanet.reading import read_plain
from sanet.settings import require
from sanet.structures import LabelSet, SanetError, UsageError, first_line

FORMAT = 2
# Bytes: of a config.json, and of the table of contents of a safetensors file.
LARGEST_CONFIG, LARGEST_HEADER = 2**22, 2**24
LONGEST_NAME = 200
LISTED = 12

_ASPP = {"decoder_channels": 256, "decoder_atrous_rates": (12, 24, 36), "decoder_aspp_dropout": 0.5}
_PYRAMID = {"decoder_channels": (256, 128, 64, 32, 16)}
# What an option was that a config.json without "format" does not name; a later change of a default changes none of it.
FORMER_DEFAULTS: dict[str, dict[str, Any]] = {
    "sanet": {
        "reduction": 4,
        "groups": 2,
        "downsample": 8,
        "pooling": "average",
        "heads": (1, 2, 3, 4),
        "branches": ("dense", "category"),
        "category_hidden": 4,
        "readout": "mask",
    },
    "fcn_se": {"hidden": 4, "residual": True},
    "encnet": {"hidden": 512, "codewords": 32},
    "danet": {"reduction": 4},
    "smp_deeplabv3": _ASPP | {"decoder_aspp_separable": False},
    "smp_deeplabv3plus": _ASPP | {"decoder_aspp_separable": True},
    "smp_pspnet": {"psp_out_channels": 512, "psp_dropout": 0.2},
    "smp_upernet": {"decoder_channels": 256},
    "smp_segformer": {"decoder_segmentation_channels": 256},
    "smp_fpn": {"decoder_pyramid_channels": 256, "decoder_segmentation_channels": 128, "decoder_dropout": 0.2},
    "smp_unet": _PYRAMID,
    "smp_unetplusplus": _PYRAMID,
    "smp_manet": _PYRAMID,
}

# By name the types of what a config.json has to hold.
TYPES: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "network": (str,),
    "backbone": (str,),
    "labels": (dict,),
    "output_stride": (int,),
    "options": (dict,),
    "shorter_side": (int, type(None)),
    "in_chans": (int,),
    "value_range": (int,),
    "images": (dict, type(None)),
    "temperature": (float, int),
    "features": (dict, type(None)),
    "weights_sha256": (str,),
}
# What it means where a key that was added later is missing.
BEFORE = {"in_chans": 3, "value_range": 255, "images": None, "temperature": 1.0, "features": None}
TEMPERATURES = 0.01, 100.0


def read_config(path: Path) -> tuple[dict[str, Any], str | None]:
    """The arguments of a model, of known names and types, and the SHA-256 of its weights where the file has one.

    Raises:
        SanetError: there is no such file, or it is not the config.json of a model.
    """
    if not path.is_file():
        raise SanetError(f"there is no {path}; name the directory of a saved model, which has one")
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise UsageError(f"more than {LARGEST_CONFIG} bytes")
        return _arguments(json.loads(text.decode("utf-8"), parse_constant=_refuse))
    except (OSError, RecursionError, TypeError, ValueError) as error:
        raise SanetError(f"{path} is not the config.json of a sanet model: {first_line(error)[:500]}") from error


def _refuse(constant: str) -> NoReturn:
    raise UsageError(f"{constant} is no number")


def _arguments(content: Any) -> tuple[dict[str, Any], str | None]:
    if not isinstance(content, dict):
        raise UsageError("no object")
    former = "format" not in content
    content = BEFORE | (_upgraded(content) if former else content)
    if content["format"] != FORMAT:
        raise UsageError(f"format {repr(content['format'])[:20]}; this version reads {FORMAT} and those without one")
    wrong = sorted(content.keys() ^ TYPES.keys())
    if wrong:
        raise UsageError(f"keys that are missing or unknown: {', '.join(wrong[:LISTED])[:LONGEST_NAME]}")
    for name, kinds in TYPES.items():
        if type(content[name]) not in kinds:
            raise UsageError(f"{name}: {' or '.join(kind.__name__ for kind in kinds)} wanted")
    if max(len(content["network"]), len(content["backbone"])) > LONGEST_NAME:
        raise UsageError(f"network, backbone: {LONGEST_NAME} characters or less")
    require("temperature", [content["temperature"]], *TEMPERATURES)
    digest = content.pop("weights_sha256")
    del content["format"]
    objects = {"labels": LabelSet(**content["labels"]), "images": read_plain(content["images"])}
    return content | objects, None if former else digest


def _upgraded(former: dict[str, Any]) -> dict[str, Any]:
    """One without "format", as this format says it; its sum is not known."""
    content = {"output_stride": 8, "shorter_side": None, "weights_sha256": ""} | former
    content.pop("pretrained_backbone", None)
    options = FORMER_DEFAULTS.get(str(content.get("network")), {}) | (content.get("options") or {})
    return content | {"format": FORMAT, "options": options}


def read_weights(path: Path, wanted: Mapping[str, Tensor], digest: str | None) -> dict[str, Tensor]:
    """The tensors of a file, if they are those of a network; no memory is taken before that is known.

    Args:
        path: a safetensors file.
        wanted: tensors of the same names, shapes and kinds of numbers; their values are not read.
        digest: SHA-256 of the file, if it is known.

    Raises:
        SanetError: the file is missing, damaged, of another network, or has values that are not finite.
    """
    try:
        differing = differences(wanted, _header(path))
        if differing:
            raise UsageError(f"not the weights of this network: {enumerated(differing)}")
        with path.open("rb") as file:
            if digest is not None and file_digest(file, "sha256").hexdigest() != digest:
                raise UsageError("its SHA-256 is not that in config.json; copy the model again")
        tensors = load_file(path)
    except Exception as error:  # safetensors' errors and PyTorch's have no class in common
        raise SanetError(f"the weights {path} cannot be read: {first_line(error)[:2000]}") from error
    infinite = [name for name, values in tensors.items() if not values.to(wanted[name].dtype).isfinite().all()]
    if infinite:
        raise SanetError(f"the weights {path} are not finite: {enumerated(infinite)}; train the model again")
    return tensors


def _header(path: Path) -> dict[str, Tensor]:
    """The tensors of a file without their values."""
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > LARGEST_HEADER:
            raise UsageError("no safetensors file")
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    tensors = {}
    with safe_open(path, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118  # it is no dictionary
            part = opened.get_slice(name)
            tensors[name] = torch.empty(part.get_shape(), dtype=kinds.get(part.get_dtype(), torch.uint8), device="meta")
    return tensors


def differences(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """One phrase for each tensor that one of them has not, or has in another shape or another kind of number."""
    phrases = []
    for name in dict.fromkeys((*own, *found)):
        if name not in found:
            phrases.append(f"{name} is missing")
        elif name not in own:
            phrases.append(f"{name} is not a tensor of the network")
        elif own[name].shape != found[name].shape:
            phrases.append(f"{name} is {tuple(found[name].shape)}, the network's {tuple(own[name].shape)}")
        elif own[name].is_floating_point() != found[name].is_floating_point():
            phrases.append(f"{name} is {found[name].dtype}, the network's is {own[name].dtype}")
    return phrases


def enumerated(phrases: list[str]) -> str:
    """The first of them, and how many there are besides."""
    rest = len(phrases) - LISTED
    return "; ".join(phrases[:LISTED]) + (f"; and {rest} more" if rest > 0 else "")
