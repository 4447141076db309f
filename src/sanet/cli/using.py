"""The commands that use a model. Torch is imported inside, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from sanet.cli.parsing import FLAT, Command, model_in, positional, run_of, words
from sanet.config import (
    MODEL,
    OWN,
    CollectionEngine,
    DataConfig,
    ExportFormat,
    ExportOutputs,
    InferenceConfig,
    MaskFormat,
    OutputConfig,
)
from sanet.deploy.config import ProfileConfig
from sanet.settings import SIDES, Chosen, within
from sanet.structures import UsageError, is_live, say


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Label the pixels of images and films.

    Args:
        images: images and films: files, folders and globs; - reads them from stdin, a line each.
        model: run directory, model directory, hf:OWNER/NAME or exported file; by default streets, the bundled model.
        output: folder for masks, overlays and predictions.jsonl.
        engine: torch; onnxruntime, faster on CPUs once a graph of the model is made, which is kept; openvino, by a
            graph as well; ray for all cores, GPUs and machines of a Ray cluster. By default onnxruntime for a model
            whose graph is kept, or for many images.
        workers: only with engine ray, largest number of processes; by default one for each GPU or core.
        device: cpu, cuda, mps or xpu; by default the best there is.
        format: mask, or also annotations to correct in a tool: labelme, cvat, coco, yolo, labelstudio, via, geojson,
            or a format of your own, "my_module:Name".
        tolerance: with another format than mask, pixels that outlines may move where they get simpler.
        batch: most images of one size that go through the network together.
        outputs: what is written of each image beside its mask, and of films.
        inference: inference settings.
    """

    images: tuple[str, ...] = positional("IMAGE", nargs="+")
    model: str | None = None
    output: str = "predictions"
    engine: CollectionEngine = "auto"
    workers: int | None = within(None, 1, 1_000_000)
    device: str | None = None
    format: Chosen = "mask"
    tolerance: float = within(0.5, 0, 100)
    batch: int = within(8, 1, 100_000)
    outputs: OutputConfig = field(default_factory=OutputConfig, metadata=FLAT)
    inference: InferenceConfig = field(default_factory=InferenceConfig, metadata=FLAT)

    def __call__(self) -> int:
        from sanet.deploy.engines import computed_by
        from sanet.inference.films import length_of
        from sanet.inference.inputs import find_images, is_film
        from sanet.inference.predict import Engine, predict_collection
        from sanet.inference.prelabels import prelabels_in, write_prelabels
        from sanet.inference.ray_engine import RayEngine
        from sanet.models.store import BUNDLED

        if self.workers is not None and self.engine != "ray":
            raise UsageError("workers: only with --engine ray; without it one process labels all images")
        if self.format != "mask":
            prelabels_in(self.output, self.format)
        # Not by its name: a folder of that name is the reader's, who has named none here.
        model = str(BUNDLED[OWN]) if self.model is None else model_in(self.model)
        given = (filter(None, sys.stdin.read().splitlines()) if name == "-" else [name] for name in self.images)
        images = [line for lines in given for line in lines]
        found = [*find_images(images, Path(self.output))]
        films = {is_film(path) for path in found}
        if self.engine == "ray":
            engine: Engine = RayEngine(model, self.device, self.inference, self.outputs, self.workers, self.batch)
        else:
            count = sum(length_of(path) if is_film(path) else 1 for path in found)
            few = [path for path in found if not is_film(path)][:3]
            graph = computed_by(self.engine, model, self.device, count, few)
            engine = Engine(model, self.device, self.inference, self.outputs, self.batch, graph)
        if self.model is None:
            names, side = ", ".join(engine.predictor.labels.names), engine.predictor.inference.shorter_side
            say(
                f"no --model: {OWN}, the bundled model of streets seen from a car ({names}), resizes images to a "
                f"shorter side of {side}; its card: {BUNDLED[OWN] / 'README.md'}"
            )
        if self.format != "mask" and engine.predictor.images.pages == "images":
            raise UsageError("--format: annotations are of images in files of one page; save the pages as files")
        if self.format != "mask" and True in films:
            raise UsageError("--format: annotations are of images, and there is a film; save its frames as files")
        outcome = predict_collection(engine, images, self.output, progress=is_live())
        say(f"{', '.join(engine.outputs.written(False in films, True in films))} and predictions.jsonl: {self.output}")
        if self.format != "mask":
            labels = engine.predictor.labels
            say(f"annotations: {write_prelabels(images, self.output, labels, self.format, self.tolerance)}")
        if outcome.kept:
            say(f"labelled: {outcome.labelled}, existed already: {outcome.kept}")
        for failure in outcome.failures:  # named at the end, after the others are done
            say(f"sanet: {failure}", error=True)
        return 1 if outcome.failures else 0


@dataclass(frozen=True, kw_only=True)
class Errors(Command):
    """Show where a model is wrong on a split, and which labels are probably wrong.

    Args:
        model: run directory, model directory, hf:OWNER/NAME or exported file; streets is the bundled model.
        split: split to look at; wrong labels that a model was trained on, it may have learnt.
        output: folder for errors.html and suspects.csv; by default RUN/errors-SPLIT.
        format: csv, or also the predictions of the suspects to correct in a tool: labelme, cvat, coco, yolo,
            labelstudio, via, geojson, or a format of your own, "my_module:Name".
        suspects: images with probably wrong labels on the page, and in that format; suspects.csv has all images.
        seed: seed of the random images.
        device: cpu, cuda, mps or xpu; by default the best there is.
        inference: inference settings.
        data: the dataset; by default the one that the run was trained on.
    """

    model: str = positional("MODEL")
    split: str = "test"
    output: str | None = None
    format: Chosen = "csv"
    suspects: int = within(20, 0, 1000)
    seed: int = within(0, 0, 2**32 - 1)
    device: str | None = None
    inference: InferenceConfig = field(default_factory=InferenceConfig, metadata=FLAT)
    data: DataConfig = field(default_factory=DataConfig)

    def __call__(self) -> None:
        from sanet.insight.errors import PAGE, SUSPECTS, errors
        from sanet.models.store import short_names

        run, name = run_of(self.model), f"errors-{self.split}"
        beside = run / name if (run / MODEL).is_dir() else f"errors-{short_names([run])[0]}-{self.split}"
        output, how = Path(self.output or beside), (self.inference, self.device, self.format, self.suspects, self.seed)
        found = errors(model_in(self.model), self.data, self.split, output, *how)
        for each in found.suspects[:5]:
            say(f"suspect labels: {each.image}, score {each.score:.2g}" if each.score else "no other suspect labels")
        say(f"page: {output / PAGE}\nall images, the most suspect first: {output / SUSPECTS}")


@dataclass(frozen=True, kw_only=True)
class Explain(Command):
    """Show which pixels a network groups with a point, and what its label rests on.

    Args:
        model: run directory, model directory or hf:OWNER/NAME; streets is the bundled model.
        image: the image.
        point: column and row; may be repeated.
        heads: stages of a SANet to show, such as 1 4; by default all.
        level: level of the backbone whose features are shown, 4 for the deepest; without heads that one is.
        output: the figure; its ending names the format.
        save_arrays: .npz file for the maps themselves.
        shorter_side: pixels that the shorter side is resized to, 0 for the image's own; by default the model's.
        device: cpu, cuda, mps or xpu; by default the best there is.
    """

    model: str = positional("MODEL")
    image: str = positional("IMAGE")
    point: tuple[tuple[int, int], ...] = words(("X", "Y"), nargs=2, action="append")
    heads: tuple[int, ...] = words("HEAD", ())
    level: int | None = within(None, 0, 4)
    output: str = "groups.png"
    save_arrays: str | None = None
    shorter_side: int | None = within(None, 0, SIDES[1])
    device: str | None = None

    def __call__(self) -> None:
        from sanet.insight.explain import explain

        given = self.image, self.point, self.output, self.heads or None, self.save_arrays, self.device
        encoding = explain(model_in(self.model), *given, self.shorter_side, self.level)
        (height, width), (rows, columns) = encoding.size, encoding.input_size
        if (rows, columns) != (height, width):
            say(f"{self.image}, {width} x {height} pixels, was resized to {columns} x {rows} for the network")
        say(f"figure: {self.output}")
        if self.save_arrays:
            say(f"arrays: {self.save_arrays}")


@dataclass(frozen=True, kw_only=True)
class Grouping(Command):
    """Score how well the heads of a SANet, or a network's features, group the pixels of a class.

    Args:
        model: run directory, model directory or hf:OWNER/NAME; streets is the bundled model.
        split: split to score.
        points: points drawn of each class in each image that has it.
        pixels: pixels drawn of each image, to be ranked.
        faithfulness: images in which deletion and insertion are measured as well, with two points each.
        seed: seed of the random generator; the points are the same for every network.
        level: level of the backbone whose features are scored, 4 for the deepest; without heads that one is.
        shorter_side: pixels that the shorter side is resized to, 0 for the image's own; by default the model's.
        device: cpu, cuda, mps or xpu; by default the best there is.
        data: the dataset; by default the one that the run was trained on.
    """

    model: str = positional("MODEL")
    split: str = "val"
    points: int = within(3, 1, 10_000)
    pixels: int = within(2000, 2, 10_000_000)
    faithfulness: int = within(0, 0, 1_000_000)
    seed: int = within(0, 0, 2**32 - 1)
    level: int | None = within(None, 0, 4)
    shorter_side: int | None = within(None, 0, SIDES[1])
    device: str | None = None
    data: DataConfig = field(default_factory=DataConfig)

    def __call__(self) -> None:
        from sanet.data.catalog import data_source
        from sanet.insight.faithfulness import faithfulness
        from sanet.insight.grouping import grouping_scores
        from sanet.insight.groups import Explainer

        images = data_source(self.data).open(self.split)
        explainer = Explainer(model_in(self.model), self.device, self.shorter_side, self.level)
        side = explainer.shorter_side
        resized = f"resized to a shorter side of {side}" if side else "of their own size"
        say(f"{self.model}: {len(images)} images of {self.data.name}, {self.split}, {resized}; seed {self.seed}")
        say(grouping_scores(explainer, images, self.points, self.pixels, self.seed).table())
        if self.faithfulness:
            say(faithfulness(explainer, images, self.faithfulness, seed=self.seed).table())


@dataclass(frozen=True, kw_only=True)
class Visualize(Command):
    """Draw images under several networks, with their errors.

    Args:
        images: files.
        models: run directories, model directories, hf:OWNER/NAME or exported files; streets is the bundled model.
        masks: ground truth of the images, in their order.
        mask_format: index, color, or auto, of the masks.
        output: the figure; its ending names the format.
        device: cpu, cuda, mps or xpu; by default the best there is.
        inference: inference settings.
    """

    images: tuple[str, ...] = positional("IMAGE", nargs="+")
    models: tuple[str, ...] = words("MODEL")
    masks: tuple[str, ...] = words("MASK", ())
    mask_format: MaskFormat = "auto"
    output: str = "visualization.png"
    device: str | None = None
    inference: InferenceConfig = field(default_factory=InferenceConfig, metadata=FLAT)

    def __call__(self) -> None:
        from sanet.insight.visualize import visualize

        models = [model_in(model) for model in self.models]
        visualize(self.images, models, self.output, self.masks, self.mask_format, self.device, self.inference)
        say(f"figure: {self.output}")


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a network as a file that runs without this package.

    Args:
        model: run directory, model directory or hf:OWNER/NAME; streets is the bundled model.
        format: onnx, onnx-int8, openvino or openvino-int8; by default what the output ends in, or onnx.
        output: the file; by default beside the model, as runs/x/model.onnx.
        outputs: logits; labels, one byte a pixel in place of four for each class; or labels+confidence, two bytes.
        opset: version of ONNX's operators; 17 to 19 for older runtimes.
        split: only int8, split on which its scores are measured.
        calibration: only int8, number of training images that set its ranges.
        max_miou_drop: only int8, largest loss of mIoU, from 0 to 1; a file that loses more is not kept.
        data: only int8, the dataset; by default the one that the run was trained on.
    """

    model: str = positional("MODEL")
    format: ExportFormat | None = None
    output: str | None = None
    outputs: ExportOutputs = "logits"
    opset: int = within(20, 17, 20)
    split: str = "val"
    calibration: int = within(32, 1, 100_000)
    max_miou_drop: float = within(0.02, 0, 1)
    data: DataConfig = field(default_factory=DataConfig)

    def __call__(self) -> None:
        from sanet.deploy.export import default_path, export, files_of, format_of, require_suffix
        from sanet.deploy.quantize import export_int8
        from sanet.files import require_own
        from sanet.models.networks import load_model

        directory = model_in(self.model)
        path = Path(self.output or default_path(directory, self.format or "onnx"))
        format = self.format or format_of(path)
        require_suffix(path, format)
        require_own(*files_of(path))
        model = load_model(directory)
        how = (self.outputs, self.opset)
        if format.endswith("int8"):
            say(export_int8(model, path, self.data, self.split, self.calibration, self.max_miou_drop, *how))
        else:
            say(export(model, path, outputs=self.outputs, opset=self.opset))
        say(f"export: {path}")


@dataclass(frozen=True, kw_only=True)
class Profile(Command):
    """Measure what networks cost: parameters, MACs, memory and time.

    Args:
        config: which networks, and how.
    """

    config: ProfileConfig = field(default_factory=ProfileConfig, metadata=FLAT)

    def __call__(self) -> int:
        from sanet.deploy.profile import profile
        from sanet.deploy.tables import files_in, render, write
        from sanet.files import require_own

        output = self.config.output
        if output is not None:
            require_own(*files_in(Path(output)))
        found = profile(self.config)
        say(render(found))
        if output is not None:
            say("\nwritten: " + ", ".join(str(path) for path in write(found, Path(output))))
        return 1 if any(cost.problem for cost in found.costs) else 0
