"""Every setting of a run, as frozen dataclasses that are validated when built; see ``sanet.settings``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import yaml

from sanet.data_config import DataConfig as DataConfig
from sanet.data_config import MaskFormat as MaskFormat
from sanet.references import Reference, name_of
from sanet.settings import SIDES, WORKERS, Chosen, Duration, Entry, Options, check, within
from sanet.settings import checked_side as checked_side
from sanet.settings import plain as plain
from sanet.settings import require as require
from sanet.structures import UsageError

ClassWeighting = Literal["none", "fourth_root", "sqrt", "log"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps", "xpu"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
ExportFormat = Literal["onnx", "onnx-int8", "openvino", "openvino-int8"]
ExportOutputs = Literal["logits", "logits+features", "labels", "labels+confidence"]
EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
CollectionEngine = Literal["auto", "torch", "onnxruntime", "openvino", "ray"]
# comp5: trained on the data of PASCAL VOC only; comp6: on other data as well.
Competition = Literal["comp5", "comp6"]

# What a run directory holds.
CONFIG, METRICS, CHECKPOINTS, MODEL = "config.yaml", "metrics.csv", "checkpoints", "model"
CROPS, PLAN = "crops.png", "plan.yaml"
# What the commands call the bundled model.
OWN = "streets"


@dataclass(frozen=True)
class AugmentationConfig:
    """Data augmentation of the training images.

    Args:
        crop: height and width of the training crops, in pixels.
        scale: smallest and largest factor of the random resize.
        hflip: probability of a left-right flip.
        vflip: probability of an upside-down flip, for images that have no top, as those from above.
        turns: turn by 0, 90, 180 or 270 degrees, for the same; needs a square crop.
        jitter: largest relative change of brightness, contrast and saturation.
    """

    crop: tuple[int, int] = within((240, 320), *SIDES)
    scale: tuple[float, float] = within((0.5, 2.0), 0.01, 100)
    hflip: float = within(0.5, 0, 1)
    vflip: float = within(0.0, 0, 1, before=0.0)
    turns: bool = field(default=False, metadata={"before": False})
    jitter: float = within(0.3, 0, 0.99)

    def __post_init__(self) -> None:
        check(self, "augmentation.")
        if self.scale[0] > self.scale[1]:
            raise UsageError(f"augmentation.scale {list(self.scale)}: the smaller factor first")
        if self.turns and self.crop[0] != self.crop[1]:
            raise UsageError(f"augmentation.turns: augmentation.crop {list(self.crop)} must be square")


@dataclass(frozen=True)
class ModelConfig:
    """Which network to train.

    Args:
        name: the network: "sanet", "fcn", "fcn_se", "encnet", "danet", "apcnet", "refinenet", "deeplabv2",
            "dilatednet", "parsenet", or one with the extra `smp`, such as "smp_deeplabv3plus".
        backbone: a timm model name.
        output_stride: stride of the last feature stage: 8 as in the paper; 16 or 32 are faster.
        pretrained_backbone: start the backbone from its ImageNet weights.
        options: further arguments of the network, such as {pooling: max} for "sanet".
        in_chans: channels of the images.
        value_range: largest value of images of integers, such as 65535.
        init_from: run directory, saved model (a directory, or hf:OWNER/NAME) or checkpoint whose weights the network
            starts from.
        strict: all weights of init_from have to fit; false starts from those that fit, and says which do not.
    """

    name: Chosen = "sanet"
    backbone: str = "tf_efficientnet_lite0"
    output_stride: int = within(16, 1, 32)
    pretrained_backbone: bool = True
    options: Options = field(default_factory=dict)
    in_chans: int = within(3, 1, 1024)
    value_range: int = within(255, 1, 2**32)
    init_from: str | None = None
    strict: bool = True

    def __post_init__(self) -> None:
        check(self, "model.")
        if not self.strict and self.init_from is None:
            raise UsageError("model.strict false: model.init_from names no weights")


@dataclass(frozen=True)
class LossConfig:
    """The sum of one or more terms, each with a weight; by default equation (6) of the paper.

    Args:
        terms: weight of each term by name: "mask", "category", "dense" of the paper; "ohem", "dice", "lovasz", "focal",
            "border"; or "my_module:Name". In place of a weight {weight: 0.5, options: {...}} gives the term options.
        class_weighting: weights of the pixels of each class: "none", or "fourth_root", "sqrt" or "log" to favour rare
            classes, the first the least.
    """

    terms: Options = field(default_factory=lambda: {"mask": 1.0, "category": 0.2, "dense": 0.8})
    class_weighting: ClassWeighting = "none"

    def __post_init__(self) -> None:
        check(self, "loss.")
        for name in self.terms:
            require(f"loss.terms.{name_of(name)}", [self.term(name)[0]], 0, 1000)
        if not any(self.term(name)[0] for name in self.terms):
            raise UsageError("loss.terms: name at least one term with a weight above 0, such as {mask: 1.0}")

    def term(self, name: Chosen) -> tuple[float, Options]:
        """The weight and the options of a term."""
        entry = self.terms[name]
        if not isinstance(entry, dict):
            return entry, {}
        if set(entry) - {"weight", "options"} or not isinstance(entry.get("options", {}), dict):
            raise UsageError(f"loss.terms.{name_of(name)} {entry!r}: give a weight, or {{weight: …, options: {{…}}}}")
        return entry.get("weight", 1.0), entry.get("options", {})


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its learning rates.

    Args:
        name: "sgd" (momentum 0.9), "adamw", "torch.optim:Name" or "my_module:Name".
        learning_rate: learning rate of the backbone at the start.
        head_lr_multiplier: the head's learning rate over the backbone's. Convolutions without a norm behind
            them, such as FCN's classifier and SANet's dense one, diverge at first where it gets much above 0.03.
        weight_decay: weight decay of all weights but norms and biases.
        layer_decay: factor by which the learning rate falls from each block of the backbone to the one before it.
        clip_norm: largest norm of the gradient of all weights; larger gradients are scaled down.
        options: further arguments of the optimiser, such as {momentum: 0.8}.
    """

    name: Chosen = "sgd"
    learning_rate: float = within(0.01, 1e-12, 1000)
    head_lr_multiplier: float = within(3.0, 1e-6, 1e6)
    weight_decay: float = within(1e-4, 0, 100)
    layer_decay: float = within(1.0, 1e-3, 1)
    clip_norm: float | None = within(None, 1e-9, 1e9)
    options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self, "optimizer.")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rates change from step to step.

    Args:
        name: "poly", "cosine", "constant", "torch.optim.lr_scheduler:Name" or "my_module:Name".
        warmup_steps: steps over which the learning rates rise linearly at the start.
        options: further arguments of the schedule, such as {power: 0.9} of "poly".
    """

    name: Chosen = "poly"
    warmup_steps: int = within(0, 0, 10**9)
    options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self, "schedule.")


@dataclass(frozen=True)
class InferenceConfig:
    """How an image is labelled.

    Args:
        window: images of more than window**2 pixels go through overlapping windows of this side.
        scales: factors by which an image is resized; the class probabilities of all of them are averaged.
        flip: average with the left-right flip of the image, at every scale.
        shorter_side: shorter side, in pixels, to which images are resized before the scales; labels still have the size
            of the image. By default the side that the model is meant for; 0 is the image's own size.
    """

    window: int = within(1024, *SIDES)
    scales: tuple[float, ...] = within((1.0,), 0.01, 100)
    flip: bool = False
    shorter_side: int | None = within(None, 0, SIDES[1])

    def __post_init__(self) -> None:
        check(self, "inference.")
        # [1.5, 1] of a YAML file and (1.0, 1.5) are the same.
        object.__setattr__(self, "scales", tuple(sorted(float(scale) for scale in self.scales)))
        if self.shorter_side != 0:
            checked_side("inference.shorter_side", self.shorter_side)
        if not 0 < len(self.scales) == len({*self.scales}):
            raise UsageError(f"inference.scales {list(self.scales)}: one or more factors, none twice")

    @property
    def several(self) -> bool:
        """Whether an image is seen in several sizes, or flipped as well."""
        return len(self.scales) > 1 or self.flip

    def factors(self, height: int, width: int) -> tuple[float, ...]:
        """By which an image of this size is resized, one for each scale."""
        whole = self.shorter_side / min(height, width) if self.shorter_side else 1.0
        return tuple(scale * whole for scale in self.scales)

    def resolved(self, side: int | None) -> InferenceConfig:
        """With a size of their own, 0 or a shorter side, for a model that is meant for ``side`` (None: any)."""
        return self if self.shorter_side is not None else replace(self, shorter_side=side or 0)


@dataclass(frozen=True)
class OutputConfig:
    """What is written of each image beside its mask, and of each film beside the shares of its classes.

    Args:
        overlays: the image tinted with the classes, with a legend, as JPEG.
        probabilities: of every class, calibrated, as a .npy of (K, H, W) float16.
        confidence: of the most likely class, calibrated, as a grey PNG from 0 to 255.
        regions: connected regions of the classes, in regions.csv.
        pixel_size: side of a pixel in a unit of yours, which regions.csv is in then; by default it is in pixels.
        threshold: pixels of less confidence than this are ignored in the mask, which has the ignore value there.
        film_masks: of a film, the mask of every frame, as PNGs in one .zip.
    """

    overlays: bool = True
    probabilities: bool = False
    confidence: bool = False
    regions: bool = False
    pixel_size: float | None = within(None, 1e-12, 1e12)
    threshold: float | None = within(None, 0, 1)
    film_masks: bool = False

    def __post_init__(self) -> None:
        check(self)
        if self.pixel_size is not None and not self.regions:
            raise UsageError("pixel_size: only with regions, whose lengths and areas are given in it")

    def written(self, images: bool = True, films: bool = False) -> list[str]:
        """Names of what is written of images and films, the masks first."""
        names = {"masks": images or self.film_masks, **{item.name: getattr(self, item.name) for item in fields(self)}}
        return [name for name, value in {**names, "film_masks": False, "frames": films}.items() if value is True]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a training run.

    What is chosen by name is "module:Name" of the packages that are given, or of a module that was opened with
    --import; with options {name: …, options: {…}}.

    Args:
        output: run directory, must be new or empty.
        data: the dataset.
        augmentation: random scale, crop, flip and colours of the training images.
        transforms: further augmentation of each training image and mask: "torchvision.transforms.v2:Name" or
            "my_module:Name".
        batch_transforms: augmentation of whole batches, on the device: "my_module:Name".
        model: the network.
        loss: the loss.
        optimizer: the optimiser.
        schedule: the schedule of the learning rate.
        epochs: passes over the training split.
        budget: time for the whole run, in place of ``epochs``: seconds, or such as 90s, 20m or 1.5h. The schedule ends
            when it does, checking and validating count, and a validation that would take more than a quarter of the
            time is left out.
        batch_size: global batch size: images in a step, of all processes.
        gradient_accumulation: parts in which a step is computed, one after the other, to fit into memory.
            Batch norm sees a part at a time, and every part has the same weight, however many labelled pixels it has.
        freeze_backbone_epochs: epochs at the start in which the backbone stays as it is; -1 for all of them.
        ema: decay of a moving average of the weights, which is validated and becomes the model, such as 0.999; by
            default there is none.
        threads: threads that a process computes with on the CPU; by default as PyTorch decides.
        num_workers: processes that load images, for each that trains; 0 loads them in the main process.
        seed: seed of the weights, the order of the images and their augmentation.
        validate_every: epochs between two validations; divides ``epochs``, so that the last one is validated.
        window: images of more than ``window ** 2`` pixels are validated in windows of this side.
        metrics: metrics of the validation beside the usual scores by the names under which they are logged, such as
            {boundary: "my_module:Name"} for val/boundary; also of "torchmetrics.classification" and
            "torchmetrics.segmentation".
        monitor: logged value that chooses the best checkpoint.
        monitor_mode: whether the best of it is its "max" or its "min"; "auto" knows: losses are best when
            low, scores when high, and a metric of yours says so by its ``higher_is_better``.
        patience: validations without a better monitored value after which training stops; by default it does not.
        checkpoint_minutes: minutes after which a checkpoint is written, besides those at the end of every epoch.
        callbacks: Lightning callbacks: "lightning.pytorch.callbacks:Name" or "my_module:Name".
        loggers: loggers beside TensorBoard's: "lightning.pytorch.loggers:Name" or "my_module:Name".
        accelerator: where to train: "cpu", "cuda", "mps", "gpu" for whichever GPU there is, or "auto" for a GPU where
            there is one.
        precision: "32-true", or "bf16-mixed" or, on GPUs, "16-mixed" to compute in 16 bits where that is safe.
    """

    output: str = "runs/sanet"
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    transforms: tuple[Entry, ...] = ()
    batch_transforms: tuple[Entry, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: int = within(30, 1, 100_000)
    budget: Duration = field(default=None, metadata={"before": None})
    batch_size: int = within(8, 1, 100_000)
    gradient_accumulation: int = within(1, 1, 100_000)
    freeze_backbone_epochs: int = within(0, -1, 100_000)
    ema: float | None = within(None, 0, 0.999999)
    threads: int | None = within(None, 1, 1024, before=None)
    num_workers: int = within(1, *WORKERS)
    seed: int = within(0, 0, 2**32 - 1)
    validate_every: int = within(1, 1, 100_000)
    window: int = within(1024, *SIDES)
    metrics: Options = field(default_factory=dict)
    monitor: str = "val/miou"
    monitor_mode: Literal["auto", "max", "min"] = "auto"
    patience: int | None = within(None, 1, 100_000)
    checkpoint_minutes: float = within(10.0, 1e-9, 1e6)
    callbacks: tuple[Entry, ...] = ()
    loggers: tuple[Entry, ...] = ()
    accelerator: Accelerator = "auto"
    precision: Precision = "32-true"

    def __post_init__(self) -> None:
        check(self)
        for name in ("transforms", "batch_transforms", "callbacks", "loggers"):
            for entry in getattr(self, name):
                Reference.of(name, entry)
        for name, entry in self.metrics.items():
            Reference.of(f"metrics.{name}", entry)
        if self.epochs % self.validate_every:
            raise UsageError(f"validate_every {self.validate_every} must divide epochs {self.epochs}")
        if self.batch_size % self.gradient_accumulation:
            raise UsageError(
                f"gradient_accumulation {self.gradient_accumulation} must divide batch_size {self.batch_size}"
            )

    def save(self, path: Path) -> None:
        """Write as YAML; ``sanet train --config`` reads it back."""
        path.write_text(yaml.safe_dump(plain(self), sort_keys=False), encoding="utf-8")
