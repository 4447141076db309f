"""What every command does. Torch is imported inside, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from shlex import quote
from threading import Event

from jsonargparse import Namespace

from sanet.config import CHECKPOINTS, CONFIG, MODEL, OWN, InferenceConfig, TrainConfig
from sanet.demo.config import DemoConfig
from sanet.deploy.config import ProfileConfig
from sanet.experiments.config import ExperimentConfig
from sanet.structures import Interrupted, SanetError, UsageError, say


def train_command(settings: Namespace) -> int:
    """Train, and say where everything is."""
    from sanet import distributed
    from sanet.evaluation.report import score_table
    from sanet.experiments.recipes import recipe
    from sanet.experiments.runs import pretrained
    from sanet.training.checkpoints import CheckpointFolder
    from sanet.training.cluster import joined
    from sanet.training.fit import train

    config = TrainConfig(**{item.name: settings[item.name] for item in fields(TrainConfig)})
    if settings.resume:
        config = replace(config, output=settings.resume)
    chosen = recipe(settings.recipe) if settings.recipe and not settings.resume else None
    with joined(config.accelerator) as cluster:
        if cluster.idle:
            say(f"{cluster.idle} more GPUs here: torchrun --nproc-per-node {cluster.idle + 1} -m sanet train …")
        try:
            if chosen:
                config = pretrained(chosen, config)
            run = train(config, resume=settings.resume is not None)
        except Interrupted as stop:
            begun = CheckpointFolder(Path(config.output) / CHECKPOINTS).listed()
            remedy = f"sanet train --resume {quote(config.output)}" if begun else "the same command"
            raise Interrupted(f"{stop}; go on with: {remedy}", stop.status) from stop
        if distributed.is_main_process():
            say(score_table(run.evaluation))
            say(f"model:  {run.directory / MODEL}\nreport: {run.directory / 'report.html'}")
            if chosen and chosen.published:
                published = ", ".join(f"{name} {value}" for name, value in chosen.published.items())
                say(f"published ({chosen.where}): {published}; evaluated as there: {chosen.evaluation(config.output)}")
    return 0


def recipes_command(settings: Namespace) -> int:
    """List the published runs."""
    from sanet.experiments.recipes import recipe_table

    say(recipe_table())
    return 0


def experiment_command(settings: Namespace) -> int:
    """Run a table of the paper, and print it."""
    from sanet import distributed
    from sanet.experiments.experiment import experiment
    from sanet.experiments.runner import PAGE, TABLE
    from sanet.training.cluster import joined

    config = ExperimentConfig(**{item.name: settings[item.name] for item in fields(ExperimentConfig)})
    with joined(config.accelerator):
        try:
            result, folder = experiment(settings.name, config)
        except Interrupted as stop:
            raise Interrupted(f"{stop}; go on with: the same command", stop.status) from stop
        except KeyboardInterrupt as stop:
            raise Interrupted("stopped; what is finished is kept; go on with: the same command", 130) from stop
        if distributed.is_main_process():
            say(f"\n{(folder / TABLE).read_text(encoding='utf-8')}\npage: {folder / PAGE}")
            for failure in result.failures():
                say(f"sanet: {failure}", error=True)
    return 1 if result.failures() else 0


def evaluate_command(settings: Namespace) -> int:
    """Score a model, and print the table; several processes share the pictures."""
    from sanet import distributed
    from sanet.evaluation.evaluate import evaluate
    from sanet.evaluation.report import score_table
    from sanet.models.store import short_names
    from sanet.training.cluster import joined
    from sanet.training.metrics import read_metrics

    run = Path(settings.trained)
    # Of models in one folder each has its own scores.
    (name,) = short_names([run])
    beside = run / settings.split if (run / MODEL).is_dir() else f"scores-{name}-{settings.split}"
    output = Path(settings.output or beside)
    with joined("cpu" if settings.device == "cpu" else "auto"):
        evaluation = evaluate(
            _model_in(settings.trained),
            settings.data,
            settings.split,
            output,
            _views(settings),
            settings.device,
            read_metrics(run),
            progress=distributed.is_main_process(),
            num_workers=settings.num_workers,
        )
        if distributed.is_main_process():
            say(score_table(evaluation))
            if side := evaluation.protocol.shorter_side:
                say(f"pictures were seen with a shorter side of {side} pixels; their masks have their own size")
            say(f"report: {output / 'report.html'}")
    return 0


def scores_command(settings: Namespace) -> int:
    """Print results side by side, if they can be compared."""
    from sanet.evaluation.compare import compare

    say(compare(settings.results))
    return 0


def submit_command(settings: Namespace) -> int:
    """Write what the VOC server takes."""
    from sanet.evaluation.submission import submit

    archive = submit(
        _model_in(settings.trained),
        settings.data,
        settings.output,
        settings.competition,
        _views(settings),
        settings.device,
    )
    say(f"checked, and ready for the server: {archive}")
    return 0


def predict_command(settings: Namespace) -> int:
    """Label files; a picture that cannot be read is named at the end, after the others are done."""
    from sanet.inference.predict import LocalEngine, PredictorSettings, planned, predict_collection
    from sanet.inference.ray_engine import RayEngine
    from sanet.models.store import BUNDLED

    if settings.workers is not None and settings.engine != "ray":
        raise UsageError("workers: only with --engine ray; without it one process labels all pictures")
    planned(settings.pictures, settings.output)  # what is in the way is said before a model is opened
    # Not by its name: a folder of that name is the reader's, who has named none here.
    model = str(BUNDLED["streets"]) if settings.model is None else _model_in(settings.model)
    predictor = PredictorSettings(model, settings.device, _views(settings))
    engine: LocalEngine | RayEngine
    if settings.engine == "ray":
        engine = RayEngine(predictor, settings.workers)
        views = engine.settings.views
    else:
        engine = LocalEngine.of(predictor)
        views = engine.predictor.views
    if settings.model is None:
        say(
            f"no --model: the package's own, for streets seen from a car ({', '.join(engine.labels.names)}), looks at "
            f"pictures resized to a shorter side of {views.shorter_side}; its card: {BUNDLED['streets'] / 'README.md'}"
        )
    outcome = predict_collection(engine, settings.pictures, settings.output)
    say(f"masks, overlays and predictions.jsonl: {settings.output}")
    if outcome.kept:
        say(f"labelled: {outcome.labelled}, there already: {outcome.kept}")
    for failure in outcome.failures:
        say(f"sanet: {failure}", error=True)
    return 1 if outcome.failures else 0


def download_command(settings: Namespace) -> int:
    """Download a public dataset."""
    from sanet.data.download import download

    download(settings.name, settings.root, settings.archive)
    return 0


def check_data_command(settings: Namespace) -> int:
    """List everything that is wrong with a dataset."""
    from sanet.data.catalog import data_source
    from sanet.data.check import check_data

    report = check_data(data_source(settings.data))
    say(report)
    return 1 if report.errors else 0


def profile_command(settings: Namespace) -> int:
    """Measure networks, print the tables, and write them where a folder is named."""
    from sanet.deploy.profile import profile
    from sanet.deploy.tables import files_in, render, write
    from sanet.files import require_own

    config = ProfileConfig(**{item.name: settings[item.name] for item in fields(ProfileConfig)})
    if config.output is not None:
        require_own(*files_in(Path(config.output)))
    found = profile(config)
    say(render(found))
    if config.output is not None:
        say("\nwritten: " + ", ".join(str(path) for path in write(found, Path(config.output))))
    return 1 if any(cost.problem for cost in found.costs) else 0


def explain_command(settings: Namespace) -> int:
    """Draw the pixel groups of points, and keep the maps where a file is named."""
    from sanet.insight.explain import explain

    encoding = explain(
        _model_in(settings.trained),
        settings.image,
        settings.point,
        settings.output,
        settings.heads,
        settings.save_arrays,
        settings.device,
        settings.shorter_side,
    )
    (height, width), (rows, columns) = encoding.size, encoding.input_size
    if (rows, columns) != (height, width):
        say(f"{settings.image}, {width} x {height} pixels, was resized to {columns} x {rows} for the network")
    say(f"figure: {settings.output}")
    if settings.save_arrays:
        say(f"arrays: {settings.save_arrays}")
    return 0


def visualize_command(settings: Namespace) -> int:
    """Draw images under several networks."""
    try:
        from sanet.insight.visualize import visualize
    except ImportError as error:
        raise SanetError(f"figures need an extra: pip install 'sanet-segmentation[figures]' ({error})") from error

    visualize(
        settings.images,
        [_model_in(model) for model in settings.models],
        settings.output,
        settings.masks,
        settings.mask_format,
        settings.device,
        _views(settings),
    )
    say(f"figure: {settings.output}")
    return 0


def grouping_command(settings: Namespace) -> int:
    """Score how well every head groups the pixels of a class, and print the table."""
    from sanet.data.catalog import data_source
    from sanet.insight.grouping import grouping_scores
    from sanet.insight.groups import Explainer

    pictures = data_source(settings.data).open(settings.split)
    explainer = Explainer(_model_in(settings.trained), settings.device, settings.shorter_side)
    side = explainer.shorter_side
    say(
        f"{settings.trained}: {len(pictures)} pictures of {settings.data.name}, {settings.split}, seen "
        f"{f'with a shorter side of {side}' if side else 'in their own size'}; seed {settings.seed}"
    )
    say(grouping_scores(explainer, pictures, settings.points, settings.pixels, settings.seed).table())
    return 0


def demo_command(settings: Namespace) -> int:
    """Serve the page until Ctrl-C or SIGTERM, either of which deletes what visitors left."""
    from sanet.demo.serve import served

    ended = Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())

    config = DemoConfig(**{item.name: settings[item.name] for item in fields(DemoConfig)})
    models = [_model_in(model) for model in settings.models]
    with served(models, config, [Path(example) for example in settings.examples]) as address:
        say(f"open {address} in a browser; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            ended.wait()
    return 0


def export_command(settings: Namespace) -> int:
    """Write a file that runs without this package, and print how it compares with the network."""
    from sanet.deploy.export import default_path, export, files_of
    from sanet.deploy.quantize import export_int8
    from sanet.files import require_own
    from sanet.models.networks import load_model

    directory = _model_in(settings.trained)
    path = settings.output or default_path(directory, settings.format)
    require_own(*files_of(Path(path)))
    model = load_model(directory)
    if settings.format == "onnx-int8":
        say(export_int8(model, path, settings.data, settings.split, settings.calibration, settings.max_miou_drop))
    else:
        say(export(model, path))
    say(f"export: {path}")
    return 0


def _model_in(directory: str) -> str:
    """A run directory keeps its model in model/; the package's own has a name."""
    from sanet.models.store import HUB, missing

    run = Path(directory)
    if directory == OWN and not run.exists():
        from sanet.models.store import BUNDLED

        return str(BUNDLED["streets"])
    if (run / MODEL).is_dir():
        return str(run / MODEL)
    if (run / CONFIG).exists():
        raise SanetError(f"{run} is a run that is not finished; go on with it: sanet train --resume {quote(directory)}")
    # At once, before a data set is read: a hub is asked for what is written as its own alone.
    if not (directory.startswith(HUB) or os.path.exists(directory)):
        raise missing(run)
    return directory


def _views(settings: Namespace) -> InferenceConfig:
    return InferenceConfig(**{item.name: settings[item.name] for item in fields(InferenceConfig)})
