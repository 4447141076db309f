"""An image in, a prediction out: NumPy, PIL, tensors or files on this side of the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from html import escape
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sanet.config import InferenceConfig, OutputConfig
from sanet.data.decoding import UNREADABLE, read_image, rgb
from sanet.data.images import array_of, shown, stored_values
from sanet.inference.beside import grouped, side_by_side
from sanet.inference.device import choose_device, prepared
from sanet.inference.exported import ExportedModel, is_exported, open_exported
from sanet.inference.prediction import Certainty, Prediction
from sanet.inference.views import LogitsFunction, label_image, probabilities_of, score_bands, score_blocks
from sanet.models.networks import SegmentationModel
from sanet.models.store import BUNDLED
from sanet.structures import UsageError, first_line

INTEGERS = ("uint8", "uint16", "uint32", "int16", "int32", "int64")
# Pixels; measured on two cores: images of 128x128 take a third less time in batches, those of 256x256 take the same.
TOGETHER = 2**17
Picture = NDArray[Any] | Image.Image | str | Path | torch.Tensor
Detail = Literal["mask", "confidence", "probabilities"]


class Predictor:
    """Labels the pixels of images with a saved model.

    It may be shared by threads, and pickled, which reads the model again; a process that was forked from one that had
    opened it is refused, since it would hang.

    Args:
        model: directory of a saved model, one of the Hugging Face hub as ``hf:OWNER/NAME``, a bundled one by its name,
            a file that `sanet export` wrote, or a model, of which a copy is used. By default "streets", for streets
            seen from a car.
        device: name of the device: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        inference: sliding window, multi-scale and flip; by default at the size that the model is meant for.
        batch: most images of one size that go through the network together; fewer where they have more pixels than
            ``TOGETHER`` on a CPU, which gains nothing then, or than a window on another device.

    Attributes:
        labels: the classes that the indices of a mask stand for.
        device: where the model runs.
        in_chans: C, channels of the images.
        images: how image files are read, and which of their values are black and white.
        outputs_of: the model as a function from images, on the device, to logits and, if it gives any, features.
        network: the model itself, or None of an exported file.
        inference: as given, with the model's size where none was.
        temperature: what calibration divides the logits by.
        statistics: of the features of the training images, where these are known.

    Raises:
        SanetError: there is no model there, or it cannot be read.
        UsageError: there is no such device.
    """

    def __init__(
        self,
        model: str | Path | SegmentationModel | None = None,
        device: str | None = None,
        inference: InferenceConfig = InferenceConfig(),
        batch: int = 8,
    ) -> None:
        self.model = BUNDLED["streets"] if model is None else model
        self.batch, self._process = batch, os.getpid()
        self.outputs_of: Callable[[torch.Tensor], Sequence[torch.Tensor]]
        self.network: SegmentationModel | None = None
        self._labels_file: ExportedModel | None = None
        known: ExportedModel | SegmentationModel
        if not isinstance(self.model, SegmentationModel) and is_exported(self.model):
            known = exported = open_exported(self.model, device)
            self.device, self._labels_file = exported.device, exported if exported.gives_labels else None
            stored = exported.images.stored if exported.images.of_values else lambda images: images
            self.outputs_of = lambda images: exported.outputs(stored(images))
        else:
            self.device, parts = choose_device(device), attrgetter("logits", "features")
            known = self.network = network = prepared(self.model, self.device)
            self.outputs_of = lambda images: parts(network(images))
        self.inference = inference.resolved(known.shorter_side)
        self.labels, self.images, self.temperature = known.labels, known.images, known.temperature
        self.in_chans, self.value_range, self.statistics = known.in_chans, known.value_range, known.statistics

    @overload
    def __call__(
        self, image: Picture, *, unit: bool = ..., threshold: float | None = ..., detail: Detail = ...
    ) -> Prediction: ...
    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        unit: bool = ...,
        threshold: float | None = ...,
        detail: Detail = ...,
    ) -> list[Prediction]: ...
    @overload
    def __call__(
        self, image: Iterator[Any], *, unit: bool = ..., threshold: float | None = ..., detail: Detail = ...
    ) -> Iterator[Prediction]: ...

    def __call__(
        self, image: Any, *, unit: bool = False, threshold: float | None = None, detail: Detail = "mask"
    ) -> Any:
        """Label every pixel.

        Args:
            image: (H, W, C), (C, H, W) or grey (H, W), uint8, of any size; a tensor (C, H, W) on any device; a file,
                or a PIL image, whose EXIF rotation is applied. For a model of another range of values any integers; for
                one of stored values these, integers or floats, as a file would have them. Or several: a list, a tuple,
                an array or tensor with a first axis B, or an iterator, such as of the frames of a film.
            unit: arrays and tensors are floats in [0, 1], which are rounded to the integers that the model takes.
            threshold: pixels of less confidence than this get the ignore index.
            detail: what is computed with the mask, and not when it is first asked for: "confidence", and entropy; or
                "probabilities", and these.

        Returns:
            A prediction, which is an array of class indices (H, W) wherever one is wanted; a list of them; or, for an
            iterator, an iterator, which reads ahead: a batch, or on a CPU two more than it labels at once.

        Raises:
            UsageError: anything else, an image without pixels, or a threshold outside 0 to 1.
            DataError: a file that cannot be read.

        Example:
            >>> import numpy as np, sanet
            >>> predictor = sanet.Predictor("streets", "cpu", sanet.InferenceConfig(shorter_side=0))
            >>> prediction = predictor(np.zeros((48, 64, 3), np.uint8))
            >>> prediction.shape, prediction.probabilities.shape
            ((48, 64), (11, 48, 64))
        """
        OutputConfig(threshold=threshold)  # which refuses what is no probability
        if isinstance(image, Iterator):
            return self._several(image, unit, threshold, detail)
        if isinstance(image, (list, tuple)) or getattr(image, "ndim", 0) == 4:
            return [*self._several(iter(image), unit, threshold, detail)]
        return self._labelled([self.seen(self.pixels(image, unit))], threshold, detail)[0]

    @torch.inference_mode()
    def label(self, image: torch.Tensor) -> torch.Tensor:
        """(C, H, W), as ``seen`` gives it -> (H, W) int64 class indices, both on the model's device."""
        self._require_own_process()
        if self._labels_file is not None:
            return self._labels_file.label(image[None], self.inference)[0]
        return label_image(self.logits_of, image, self.inference)

    @torch.inference_mode()
    def judged(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """``label``, and the calibrated confidence (H, W) float32, which a file of labels alone does not give."""
        if self._labels_file is not None:
            return self.label(image), None
        self._require_own_process()
        labels, confidence = [], []
        for band in score_bands(self.logits_of, image[None], self.inference):
            labels.append(band[0].max(dim=0).indices)
            confidence.append(probabilities_of(band, self.inference, self.temperature)[0].amax(dim=0))
        return torch.cat(labels), torch.cat(confidence)

    def watched(self) -> tuple[LogitsFunction, list[torch.Tensor]]:
        """``logits_of``, and a list to which every call of it adds the features (B, C) of its images, if it has any."""
        found = list[torch.Tensor]()

        def logits_of(images: torch.Tensor) -> torch.Tensor:
            logits, *features = self.outputs_of(images)
            found.extend(features)
            return logits

        return logits_of, found

    def features_of(self, image: torch.Tensor) -> NDArray[np.float32] | None:
        """(C, H, W), as ``seen`` gives it -> (C,), the mean over views and windows; see ``Prediction``."""
        return self._labelled([image], None, "mask")[0].features

    def logits_of(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W), as ``seen`` gives them -> (B, K, H, W) logits, on the model's device."""
        return self.outputs_of(images)[0]

    def seen(self, image: torch.Tensor) -> torch.Tensor:
        """(C, H, W) as stored -> as the network takes it, which differs for models of stored values only."""
        return self.images.scaled(image) if self.images.of_values else image

    def read(self, path: Path) -> NDArray[Any]:
        """(H, W, C) of a file, as this model wants it; a DataError where it cannot be."""
        return stored_values(path, self.images) if self.images.of_values else read_image(path)

    def _several(
        self, images: Iterator[Any], unit: bool, threshold: float | None, detail: Detail
    ) -> Iterator[Prediction]:
        on_cpu, area = self.device.type == "cpu", self.inference.window**2
        seen = (self.seen(self.pixels(image, unit)) for image in images)
        groups = grouped(seen, self.batch, TOGETHER if on_cpu else area)
        label = partial(self._labelled, threshold=threshold, detail=detail)
        beside = torch.get_num_threads() if on_cpu else 1
        # Images that go through windows take the memory of all their pixels.
        found = side_by_side(label, groups, beside, lambda held: held[0][0].numel() <= area)
        yield from chain.from_iterable(found)

    @torch.inference_mode()
    def _labelled(self, held: list[torch.Tensor], threshold: float | None, detail: Detail) -> list[Prediction]:
        """Predictions of images of one size, (C, H, W) each, as the network takes them."""
        self._require_own_process()
        images = (torch.stack(held) if len(held) > 1 else held[0][None]).to(self.device)
        size, classes = (len(held), *images.shape[-2:]), len(self.labels)
        found: dict[str, NDArray[Any]] = {"labels": np.empty(size, np.uint8 if classes <= 256 else np.uint16)}
        if detail != "mask" or threshold is not None:
            found |= {name: np.empty(size, np.float32) for name in ("confidence", "entropy")}
        if detail == "probabilities":
            found["probabilities"] = np.empty((size[0], classes, *size[1:]), np.float16)
        logits_of, features = self.watched()
        if alone := self._labels_file if len(found) == 1 else None:
            found["labels"][:] = alone.label(images, self.inference).cpu().numpy()
        for rows, columns, block in () if alone else score_blocks(logits_of, images, self.inference):
            found["labels"][:, rows, columns] = block.max(dim=1).indices.cpu().numpy()
            if len(found) > 1:
                shares = probabilities_of(block, self.inference, self.temperature)
                found["confidence"][:, rows, columns] = shares.amax(dim=1).cpu().numpy()
                found["entropy"][:, rows, columns] = torch.special.entr(shares).sum(dim=1).cpu().numpy()
                if detail == "probabilities":
                    found["probabilities"][..., rows, columns] = shares.half().cpu().numpy()
        if features:
            found["features"] = torch.stack(features).mean(dim=0, dtype=torch.float32).cpu().numpy()
        known = ({name: values[place] for name, values in found.items()} for place in range(len(held)))
        return [self._prediction(seen, each, threshold) for seen, each in zip(held, known, strict=True)]

    def _prediction(self, seen: torch.Tensor, known: dict[str, NDArray[Any]], threshold: float | None) -> Prediction:
        """Of an image, what is known of it; the rest is found out when it is asked for."""

        def again(detail: Detail) -> Prediction:
            return self._labelled([seen], None, detail)[0]

        mask = known["labels"]
        if threshold is not None:
            ignored = self.labels.ignore_index
            mask = mask.astype(np.promote_types(mask.dtype, np.min_scalar_type(ignored)))
            mask[known["confidence"] < threshold] = ignored
        features, statistics = known.get("features"), self.statistics
        certainty = Certainty(known["confidence"], known["entropy"]) if "confidence" in known else None
        return Prediction(
            mask,
            self.labels,
            self.shown(seen),
            lambda: certainty or again("confidence").certainty,
            lambda: known["probabilities"] if "probabilities" in known else again("probabilities").probabilities,
            features,
            None if statistics is None or features is None else statistics.unlike(features),
        )

    def shown(self, seen: torch.Tensor) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 for people, of what ``seen`` gives."""
        return shown(seen / self.value_range if self.value_range > 255 and not seen.is_floating_point() else seen)

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                "this process was forked from one that has opened the model, and would hang; open the model in it, or "
                'start it by multiprocessing.get_context("spawn")'
            )

    def __reduce__(self) -> tuple[Any, ...]:
        model = self.model if isinstance(self.model, SegmentationModel) else str(self.model)
        return Predictor, (model, str(self.device), self.inference, self.batch)

    def __repr__(self) -> str:
        what = "a model in memory" if isinstance(self.model, SegmentationModel) else str(self.model)
        side, labels = self.inference.shorter_side, self.labels
        size = f"images at a shorter side of {side}" if side else "images at their own size"
        return f"Predictor({what}: {len(labels)} classes, {', '.join(labels.names)}; {size}; on {self.device})"

    def _repr_html_(self) -> str:
        """The classes with their colours, for a notebook."""
        classes = zip(self.labels.names, self.labels.colors, strict=True)
        items = "".join(f'<li style="color:rgb{color}">&#9632; {escape(name)}</li>' for name, color in classes)
        return f"<p>{escape(repr(self))}</p><ul>{items}</ul>"

    def pixels(self, image: Any, unit: bool = False) -> torch.Tensor:
        """An image of any kind that a call takes as (C, H, W), with the values that a file would have."""
        if isinstance(image, (str, Path)):
            image = self.read(Path(image))
        elif isinstance(image, Image.Image):
            try:
                image = array_of(image) if self.images.of_values else rgb(image)
            except UsageError:
                raise
            except UNREADABLE as error:  # its file is read only now
                raise UsageError(f"the image cannot be read: {first_line(error)}") from error
        elif not isinstance(image, (np.ndarray, torch.Tensor)):
            raise UsageError(f"the image is a {type(image).__name__}; give an array, a PIL image, a tensor or a file")
        elif unit:
            image = self._whole(image)
        planes = self._planes(image)
        if self.images.of_values:
            if not planes.isfinite().all():
                raise UsageError("the image has values that are infinite or no numbers; put numbers in their place")
            return planes
        return planes.expand(self.in_chans, -1, -1)

    def _planes(self, image: NDArray[Any] | torch.Tensor) -> torch.Tensor:
        """An array or tensor as (C, H, W), or (1, H, W) grey, of the type that this model takes."""
        shape, dtype = tuple(image.shape), str(image.dtype).removeprefix("torch.")
        kind: Any = np.float32
        if self.images.of_values:
            fits = not dtype.startswith(("complex", "object", "str", "<U"))
            allowed = "integers or floats, the values that files store"
        else:
            names = INTEGERS if self.value_range > 255 else INTEGERS[:1]
            fits, kind = dtype in names, np.int64 if self.value_range > 255 else np.uint8
            allowed = f"{' or '.join(names)}, from 0 to {self.value_range}, or floats in [0, 1] with unit=True"
        if not fits:
            raise UsageError(f"the image is {dtype}; give {allowed}")
        if isinstance(image, np.ndarray):
            last = image.ndim == 3 and (shape[-1] == self.in_chans or shape[0] != self.in_chans)
            # A copy, since PyTorch takes neither what is read-only nor what goes backwards.
            image = torch.from_numpy(np.array(np.moveaxis(image, -1, 0) if last else image, kind, order="C"))
        planes = (image[None] if image.ndim == 2 else image).to(torch.from_numpy(np.empty(0, kind)).dtype)
        counts = {self.in_chans} if self.images.of_values else {1, self.in_chans}
        if planes.ndim != 3 or len(planes) not in counts or 0 in planes.shape:
            grey = "" if self.in_chans > 1 and self.images.of_values else " or (H, W) grey,"
            hint = "; leave the transparency out: image[..., :3]" if shape[-1:] == (4,) and self.in_chans == 3 else ""
            raise UsageError(
                f"the image has shape {shape}; give (H, W, {self.in_chans}) or ({self.in_chans}, H, W),{grey} with "
                f"pixels{hint}"
            )
        return planes

    def _whole(self, image: NDArray[Any] | torch.Tensor) -> torch.Tensor | NDArray[Any]:
        """Floats in [0, 1] as the integers that this model takes."""
        if isinstance(image, torch.Tensor):  # of what NumPy does not have, bfloat16, too
            kind = torch.float64 if image.is_floating_point() else image.dtype
            return torch.as_tensor(self._whole(image.detach().to("cpu", kind).numpy()))
        if self.images.of_values or image.dtype.kind != "f":
            wanted = "stored values" if self.images.of_values else "integers"
            raise UsageError(f"unit: the image is {image.dtype} and the model takes {wanted}; give floats in [0, 1], "
                             "or leave it out")  # fmt: skip
        if not ((image >= 0) & (image <= 1)).all():
            raise UsageError(f"unit: the image has values from {image.min():g} to {image.max():g}, not in [0, 1]")
        whole = np.rint(image.astype(np.float64) * self.value_range)
        return whole.astype(np.uint8 if self.value_range == 255 else np.int64)
