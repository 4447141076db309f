"""The commands that lead to a model and its scores. Torch is imported inside, so that ``--help`` answers at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from sanet.cli.parsing import FLAT, GIVEN, Command, model_in, positional, run_of
from sanet.config import CHECKPOINTS, MODEL, DataConfig, EngineName, InferenceConfig, TrainConfig
from sanet.repeated.config import RepeatConfig
from sanet.settings import WORKERS, Chosen, Options, changed, plain, within
from sanet.structures import Interrupted, say
from sanet.tables import percent


@dataclass(frozen=True, kw_only=True)
class Download(Command):
    """Download a public dataset.

    Args:
        name: voc or voc_aug.
        root: folder for it, to be named as data.root.
        archive: files that exist already, such as [a.tar].
    """

    name: str = positional("NAME")
    root: str
    archive: tuple[str, ...] = ()

    def __call__(self) -> None:
        from sanet.data.download import download

        download(self.name, self.root, self.archive)


@dataclass(frozen=True, kw_only=True)
class Convert(Command):
    """Write a dataset, such as the export of an annotation tool, as images and masks, or in another format.

    Args:
        folder: the dataset's folder, as --data.root.
        output: folder to write.
        format: masks, or labelme, cvat, coco, yolo, labelstudio, via, geojson, or "my_module:Name".
        data: the dataset.
    """

    folder: str = positional("SOURCE")
    output: str = positional("OUT")
    format: Chosen = "masks"
    data: DataConfig = field(default_factory=DataConfig)

    def __call__(self) -> None:
        from sanet.data.catalog import data_source
        from sanet.data.formats.convert import convert

        source = data_source(replace(self.data, root=self.folder))
        for note in source.notes:
            say(note)
        for line in convert(source, self.output, self.format):
            say(line)
        say(f"written: {self.output}")


@dataclass(frozen=True, kw_only=True)
class CheckData(Command):
    """Say what a dataset is, and list everything that is wrong with it.

    Args:
        folder: the dataset's folder, as --data.root.
        data: the dataset.
        sheet: picture to write, of training images with their labels laid over; "" for none.
    """

    folder: str | None = positional("FOLDER", "?")
    data: DataConfig = field(default_factory=DataConfig)
    sheet: str = "data-check.png"

    def __call__(self) -> int:
        from sanet.data.catalog import data_source
        from sanet.data.check import check_data
        from sanet.files import require_own, written
        from sanet.insight.sheet import data_sheet

        if self.sheet:
            require_own(Path(self.sheet), option="--sheet")
        config = replace(self.data, root=self.folder or self.data.root)
        source = data_source(config)
        report = check_data(source)
        say(report)
        if self.sheet and (picture := data_sheet(source, report)):
            with written(Path(self.sheet), "--sheet") as aside:
                picture.save(aside, "PNG")
            say(f"images with their labels: {self.sheet}")
        if report.errors:
            return 1
        say(f"train on it: sanet train {' '.join(quote(word) for word in train_words(config))}")
        return 0


def train_words(config: DataConfig) -> list[str]:
    """The options of ``sanet train`` that name a dataset, without those that are as by default."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
        for name, value in changed(config, "data.").items()
    }
    words = [word for name, text in texts.items() for word in (f"--{name}", text)]
    return [*words, "--output", f"runs/{Path(config.root).resolve().name if config.root else config.name}"]


@dataclass(frozen=True, kw_only=True)
class Plan(Command):
    """Choose all settings of a training for a dataset, and say why; `sanet train --config plan.yaml` takes them.

    Args:
        folder: the dataset's folder, as --data.root.
        save: YAML file to write.
        memory: gigabytes that a step may take where it trains; by default all that there are.
        run: what is settled already; the plan keeps it.
    """

    folder: str | None = positional("FOLDER", "?")
    save: str = "plan.yaml"
    memory: float | None = within(None, 0.01, 1e6)
    run: TrainConfig = field(default_factory=TrainConfig, metadata=FLAT)
    given: tuple[str, ...] | None = field(default=None, metadata=GIVEN)

    def __call__(self) -> None:
        from sanet.files import require_own, written
        from sanet.training.plan import plan

        require_own(Path(self.save), option="--save")
        root = self.folder or self.run.data.root
        config = replace(self.run, data=replace(self.run.data, root=root))
        found = plan(config, self.given or changed(config), self.memory)
        with written(Path(self.save), "--save") as aside:
            aside.write_text(str(found), encoding="utf-8")
        say(f"{found}\ntrain with it: sanet train --config {quote(self.save)}")


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a network. Without a file of settings, what is not given is planned for the images; see `sanet plan`.

    Args:
        run: everything that decides the outcome.
        resume: run directory to resume, from its newest checkpoint; its settings are the defaults.
        trust_changes: resume also where opened code or the data changed since the run began.
        preview: PNG to write, of the first batch as the network sees it with its labels laid over; nothing is trained.
    """

    run: TrainConfig = field(default_factory=TrainConfig, metadata=FLAT)
    resume: str | None = None
    trust_changes: bool = False
    preview: str = ""
    given: tuple[str, ...] | None = field(default=None, metadata=GIVEN)

    def __call__(self) -> None:
        from sanet import distributed
        from sanet.evaluation.copying import COPYING
        from sanet.evaluation.report import score_table
        from sanet.training.checkpoints import CheckpointFolder
        from sanet.training.cluster import joined
        from sanet.training.fit import preview, train
        from sanet.training.plan import plan
        from sanet.training.run import refuse_used
        from sanet.training.summary import ending

        config, reasons = replace(self.run, output=self.resume) if self.resume else self.run, ""
        with joined(config.accelerator) as cluster:
            if self.given is not None:
                if not self.preview:
                    distributed.broadcast_from_main(lambda: refuse_used(config, settled=False))
                planned = distributed.broadcast_from_main(lambda: plan(config, self.given or (), timed=False))
                config, reasons = planned.config, str(planned)
                if distributed.is_main_process():
                    say(planned)
            if self.preview:
                preview(config, Path(self.preview))
                return say(f"crops with their labels: {self.preview}; nothing was trained")
            if cluster.idle:
                say(f"{cluster.idle} more GPUs here: torchrun --nproc-per-node {cluster.idle + 1} -m sanet train …")
            try:
                run = train(config, self.resume is not None, self.trust_changes, reasons)
            except Interrupted as stop:
                begun = CheckpointFolder(Path(config.output) / CHECKPOINTS).listed()
                remedy = f"sanet train --resume {quote(config.output)}" if begun else "the same command"
                raise Interrupted(f"{stop}; resume with: {remedy}", stop.status) from stop
            if distributed.is_main_process():
                say(score_table(run.evaluation))
                if copied := run.evaluation.facts.get(COPYING):
                    say(f"{COPYING}: mean IoU {percent(copied['miou'])}")
                say(ending(config, run.evaluation, run.chosen))


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Score a model on a split of a dataset.

    Args:
        model: run directory, model directory, hf:OWNER/NAME or exported file; streets is the bundled model.
        split: split to score.
        output: folder for scores.json and report.html.
        num_workers: processes that load images.
        device: cpu, cuda, mps or xpu; by default the best there is.
        engine: torch, onnxruntime or openvino; by default onnxruntime on a CPU if a graph of the model is kept, as of
            predict.
        inference: inference settings.
        metrics: metrics of your own beside the usual scores, by name, such as {boundary: "my_module:Name"}.
        data: the dataset; by default the one that the run was trained on.
    """

    model: str = positional("MODEL")
    split: str = "test"
    output: str | None = None
    num_workers: int = within(0, *WORKERS)
    device: str | None = None
    engine: EngineName = "auto"
    inference: InferenceConfig = field(default_factory=InferenceConfig, metadata=FLAT)
    metrics: Options = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)

    def __call__(self) -> None:
        from sanet import distributed
        from sanet.deploy.engines import computed_by, runs_in
        from sanet.evaluation.evaluate import called, evaluate, files_in
        from sanet.evaluation.report import score_table
        from sanet.evaluation.results import trained_in
        from sanet.files import require_own
        from sanet.models.store import short_names
        from sanet.training.cluster import joined
        from sanet.training.metrics import read_metrics

        run = run_of(self.model)
        # Of models in one folder each has its own scores.
        (name,) = short_names([run])
        beside = run / self.split if (run / MODEL).is_dir() else f"scores-{name}-{self.split}"
        output = Path(self.output or beside)
        model = model_in(self.model)
        with joined("cpu" if self.device == "cpu" else "auto"):
            distributed.broadcast_from_main(lambda: require_own(*files_in(output)))  # before a graph is made
            graph = distributed.broadcast_from_main(lambda: computed_by(self.engine, model, self.device))
            used = {"engine": runs_in(graph)} if graph != model else {}
            evaluation = evaluate(
                graph,
                self.data,
                self.split,
                output,
                self.inference,
                self.device,
                self.metrics,
                history=read_metrics(run),
                progress=distributed.is_main_process(),
                num_workers=self.num_workers,
                facts={"model": called(model), **used, **trained_in(run)},
            )
            if distributed.is_main_process():
                say(score_table(evaluation))
                if (feeding := evaluation.protocol.inference) and (side := feeding.shorter_side):
                    say(f"images were resized to a shorter side of {side} pixels; scores are of the masks' own size")
                say(f"report: {output / 'report.html'}")


@dataclass(frozen=True, kw_only=True)
class Score(Command):
    """Score masks against the ground truth, whoever predicted them.

    Args:
        predictions: folder, .zip or .tar of masks that have the names and the sizes of the images.
        truth: folder, .zip or .tar of a dataset, or of masks alone; by default --data.root.
        split: split to score; by default all images.
        output: folder for scores.json and report.html.
        allow_subset: leave out images without a prediction, instead of refusing.
        indices: the predictions hold class indices, as of `sanet predict`; false for the values of the ground truth.
            By default what they fit.
        metrics: metrics of your own beside the usual scores, by name, such as {boundary: "my_module:Name"}.
        data: the dataset.
    """

    predictions: str = positional("PRED")
    truth: str | None = positional("TRUTH", "?")
    split: str | None = None
    output: str | None = None
    allow_subset: bool = False
    indices: bool | None = None
    metrics: Options = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)

    def __call__(self) -> None:
        from sanet.evaluation.report import score_table
        from sanet.evaluation.score import ALL, score

        output = Path(self.output or f"scores-{Path(self.predictions).resolve().name}-{self.split or ALL}")
        evaluation = score(
            self.predictions,
            self.truth,
            self.data,
            self.split,
            output,
            self.metrics,
            self.allow_subset,
            self.indices,
        )
        say(score_table(evaluation))
        say(f"report: {output / 'report.html'}")


@dataclass(frozen=True, kw_only=True)
class Repeat(Command):
    """Train and score rows of settings over several seeds, and compare them; `sanet repeat TABLE.yaml`.

    Args:
        config: the table.
    """

    config: RepeatConfig = field(default_factory=RepeatConfig, metadata=FLAT)

    def __call__(self) -> int:
        from sanet import distributed
        from sanet.repeated.runner import repeat
        from sanet.training.cluster import joined

        with joined(self.config.base.get("accelerator", "auto")):
            failures = repeat(self.config).failures()
            if distributed.is_main_process():
                say(Path(self.config.output, f"{self.config.name}.md").read_text(encoding="utf-8"))
                for failure in failures:
                    say(f"sanet: {failure}", error=True)
        return 1 if failures else 0


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Show scores side by side.

    Args:
        scores: scores.json files, or their folders.
    """

    scores: tuple[str, ...] = positional("SCORES", nargs="+")

    def __call__(self) -> None:
        from sanet.evaluation.compare import compare

        say(compare(self.scores))
