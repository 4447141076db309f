import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

import sanet
from extension.my_lab.metrics import BoundaryF1
from gloo import run_in_processes
from sanet.cli.main import main
from sanet.config import DataConfig, InferenceConfig
from sanet.data.catalog import data_source
from sanet.data.decoding import DataError
from sanet.data.source import Record
from sanet.evaluation.evaluate import evaluate, evaluate_dataset
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.report import write_report
from sanet.evaluation.results import read_scores
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.structures import LabelSet, Sample, SanetError, UsageError

NAMES = ("ground", "tree", "lamp")


@pytest.fixture
def data(tmp_path):
    """Five pictures of different, odd sizes; "lamp" is nowhere."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "val" / kind).mkdir(parents=True)
    for index in range(5):
        size = tuple(int(side) for side in rng.integers(33, 90, 2))
        mask = rng.integers(0, 2, size, dtype=np.uint8)
        mask[rng.random(size) < 0.1] = 255
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
            tmp_path / "val" / "images" / f"{index}.png"
        )
        Image.fromarray(mask).save(tmp_path / "val" / "masks" / f"{index}.png")
    return sanet.DataConfig("folder", str(tmp_path), NAMES, background="ground")


def protocol_of(data, dataset):
    return Protocol.of(data, "val", dataset.names, dataset.labels, InferenceConfig())


@pytest.fixture(scope="module")
def model():
    """A network that finds all classes in noise, and changes its mind from pixel to pixel."""
    torch.manual_seed(3)
    model = sanet.create_model("fcn", "test_resnet", labels=sanet.LabelSet(NAMES, background=0)).eval()
    with torch.inference_mode():
        logits = model(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)).logits
        model.head.classifier.bias -= logits.mean(dim=(0, 2, 3))
    return model


def test_equals_a_count_by_hand_over_whole_pictures(data, model, tmp_path):
    expected = np.zeros((3, 3), np.int64)
    for index in range(5):
        image = np.array(Image.open(f"{data.root}/val/images/{index}.png"))
        truth = np.array(Image.open(f"{data.root}/val/masks/{index}.png"))
        with torch.inference_mode():
            found = model(torch.from_numpy(image).permute(2, 0, 1)[None]).logits.argmax(1)[0].numpy()
        for true, predicted in zip(truth.ravel(), found.ravel(), strict=True):
            if true != 255:
                expected[true, predicted] += 1
    evaluation = sanet.evaluate(model, data, "val", tmp_path / "out", device="cpu", progress=False)
    assert (expected[:2] > 100).all()
    assert np.array_equal(evaluation.confusion, expected)
    assert list(evaluation.image_miou) == ["0", "1", "2", "3", "4"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        ".sanet.sums", "scores.json", "image_counts.npz", "report.html",
    }  # fmt: skip


def test_the_worst_images_come_first(data):
    dataset = data_source(data).open("val")
    truths = {dataset[index].image.sum().item(): dataset[index].mask for index in range(5)}
    share_right = dict(zip(truths, (1.0, 0.2, 0.8, 0.0, 0.5), strict=True))

    def label(sample):
        key = sample.image.sum().item()
        truth = truths[key].clone()
        truth[truth == 255] = 0
        rows = round(len(truth) * share_right[key])
        truth[rows:] = 1 - truth[rows:]
        return truth, None

    evaluation = evaluate_dataset(label, dataset, protocol_of(data, dataset), progress=False)
    assert [example.name for example in evaluation.worst] == ["3", "1", "4", "2", "0"]
    assert evaluation.worst[0].miou == 0
    assert evaluation.worst[-1].miou == 1
    assert evaluation.worst[0].truth.shape == evaluation.worst[0].image.shape[:2]
    assert (evaluation.typical.name, evaluation.reliability) == ("4", None)


def test_a_split_means_what_it_says(data, model):
    with pytest.raises(ValueError, match="unknown split 'test'"):
        sanet.evaluate(model, data, "test", progress=False)


def test_other_classes_are_refused(data):
    model = sanet.create_model("fcn", "test_resnet", num_classes=3)
    with pytest.raises(SanetError, match="class 0, class 1, class 2"):
        sanet.evaluate(model, data, "val", progress=False)


def test_the_protocol_says_how_it_was_done(data, model, tmp_path):
    inference = InferenceConfig(512, (0.5, 1.0), True)
    evaluation = evaluate(model, data, "val", tmp_path / "out", inference, "cpu", progress=False)
    protocol = evaluation.protocol
    assert (protocol.data, protocol.allow_subset, protocol.split, protocol.images) == ("folder", False, "val", 5)
    assert (protocol.classes, protocol.background, protocol.ignore_index) == (NAMES, "class ground", 255)
    assert protocol.inference == inference
    assert evaluation.facts["model"] == "in memory"
    assert protocol.labels_sha256[:12] in (tmp_path / "out" / "report.html").read_text()
    found = read_scores(tmp_path / "out")
    assert found.protocol == protocol
    assert np.array_equal(found.confusion, evaluation.confusion)
    plain = evaluate(model, data, "val", device="cpu", progress=False)
    assert not np.array_equal(plain.confusion, evaluation.confusion)
    assert plain.protocol.digest == protocol.digest
    assert plain.protocol.inference_text() != protocol.inference_text()


def test_corrected_labels_are_another_ground_truth(data, model, tmp_path):
    before = evaluate(model, data, "val", device="cpu", progress=False).protocol
    path = tmp_path / "val" / "masks" / "3.png"
    mask = np.array(Image.open(path))
    mask[0, 0] = 1 - mask[0, 0] if mask[0, 0] < 2 else 0
    Image.fromarray(mask).save(path)
    after = evaluate(model, data, "val", device="cpu", progress=False).protocol
    assert [difference.split(":")[0] for difference in before.differences(after)] == ["labels SHA-256"]


def test_a_score_is_of_the_size_that_the_model_sees(data, model, tmp_path):
    meant = copy.deepcopy(model)
    meant.shorter_side = 64
    meant.save_pretrained(tmp_path)
    found = evaluate(tmp_path, data, "val", progress=False, device="cpu")
    asked = evaluate(model, data, "val", inference=InferenceConfig(shorter_side=64), progress=False, device="cpu")
    own = evaluate(tmp_path, data, "val", inference=InferenceConfig(shorter_side=0), progress=False, device="cpu")
    assert found.protocol == asked.protocol
    assert found.protocol.inference.shorter_side == 64
    assert np.array_equal(found.confusion, asked.confusion)
    assert own.protocol == evaluate(model, data, "val", progress=False, device="cpu").protocol
    assert own.protocol.inference.shorter_side is None
    assert (own.confusion != found.confusion).any()


def test_an_output_that_cannot_be_written_is_named_before_the_work(data, model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Predictor, "judged", None)
    with pytest.raises(UsageError, match=r"--output: .*file is there already"):
        sanet.evaluate(model, data, "val", tmp_path / "file" / "out", progress=False)


def test_workers_change_nothing(data, model, tmp_path):
    for workers in (0, 2):
        evaluate(model, data, "val", tmp_path / str(workers), device="cpu", progress=False, num_workers=workers)
    assert (tmp_path / "0" / "scores.json").read_bytes() == (tmp_path / "2" / "scores.json").read_bytes()


class Images:
    """Images of different sizes; every third has no labelled pixel, and one that is asked for may be unreadable."""

    labels = LabelSet(("a", "b", "c"))

    def __init__(self, count, unreadable=None):
        self.names = [f"image {index}" for index in range(count)]
        self.records = [Record(name) for name in self.names]
        self.unreadable = unreadable

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        if index == self.unreadable:
            raise DataError(f"{self.names[index]} cannot be read")
        generator = torch.Generator().manual_seed(index)
        size = (33 + index, 40)
        mask = torch.randint(0, 3, size, generator=generator)
        if index % 3 == 2:
            mask[:] = 255
        return Sample(
            torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8), mask, self.names[index]
        )


def label_by_channel(sample):
    values, labels = (sample.image[:3].float() / sample.image.max()).max(0)
    return labels, values


def scores_in(count, unreadable=None):
    """What a process of a job gets, and what it writes."""
    dataset = Images(count, unreadable)
    found = evaluate_dataset(label_by_channel, dataset, protocol_of(sanet.DataConfig(), dataset), progress=False)
    # NaN is equal to nothing, so as texts.
    shown = [item.name for item in (*found.worst, *filter(None, [found.typical]))]
    return found.confusion.tolist(), repr(found.scores), repr(found.image_miou), found.reliability.tolist(), shown


@pytest.mark.slow
@pytest.mark.parametrize(("count", "images"), [(1, 4), (2, 1), (2, 5), (3, 7)])
def test_processes_count_every_image_exactly_once(count, images):
    *expected, shown = scores_in(images)
    assert sum(map(sum, expected[0])) == sum((33 + index) * 40 for index in range(images) if index % 3 != 2)
    assert sum(expected[3][0]) == sum(map(sum, expected[0]))
    found = run_in_processes(count, scores_in, images)
    assert [item[:4] for item in found] == [tuple(expected)] * count
    assert [item[4] for item in found] == [shown] + [[]] * (count - 1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_processes_write_what_one_writes(count, data, model, tmp_path):
    """Seven processes have two that see no image; the metrics are of all images, too."""

    def run(name):
        metrics = {"f1": BoundaryF1(), "accuracy": MulticlassAccuracy(3, average="micro", ignore_index=255)}
        found = evaluate(model, data, "val", tmp_path / name, device="cpu", metrics=metrics, progress=False)
        assert found.metrics["accuracy"] == pytest.approx(found.scores.pixel_accuracy, abs=1e-6)
        assert 0 < found.metrics["f1"] < 1
        return repr((found.confusion.tolist(), found.scores, found.image_miou, found.protocol))

    expected = run("one")
    assert run_in_processes(count, run, "several") == [expected] * count
    assert read_scores(tmp_path / "several").metrics == read_scores(tmp_path / "one").metrics != {}
    for file in ("scores.json", "report.html"):
        assert (tmp_path / "several" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()
    assert json.loads((tmp_path / "one" / "scores.json").read_text())["protocol"]["images"] == 5


class Failing(Metric):
    """Fails where it is told to."""

    def __init__(self, place="update"):
        super().__init__()
        self.place = place
        self.add_state("images", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, prediction, mask):
        self.images += 1
        if self.place == "update":
            raise KeyError("no such shade")

    def compute(self):
        return {}["no such shade"] if self.place == "compute" else torch.ones(3)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("place", ["update", "compute", "nowhere"])
def test_a_metric_that_fails_is_named(data, model, place, processes):
    """The last one returns three values where one is asked for."""

    def run():
        metrics = {"shade": {"name": Failing, "options": {"place": place}}}
        with pytest.raises(SanetError, match=r"metrics\.shade: .*(no such shade|scalar|element)"):
            evaluate(model, data, "val", device="cpu", metrics=metrics, progress=False)

    run() if processes == 1 else run_in_processes(processes, run)


@pytest.mark.parametrize(
    ("metrics", "named"),
    [
        ({"boundary": "my_lab.metrics:BoundaryF1"}, "--import my_lab"),
        ({"miou": BoundaryF1}, "metrics.miou"),
        ({"x": Sample}, "metrics"),
        ({"x": {"name": BoundaryF1, "options": {"pixel": 1}}}, "pixel"),
    ],
)
def test_a_metric_that_cannot_be_is_named_before_the_data_are_read(metrics, named, model):
    with pytest.raises(UsageError, match=named):
        evaluate(model, sanet.DataConfig("folder", "/nowhere", NAMES), metrics=metrics, progress=False)


@pytest.fixture
def folder_options(data):
    return ["--data.name", "folder", "--data.root", data.root, "--data.classes", "[ground, tree, lamp]"]


@pytest.mark.parametrize("dotted", [False, True])
def test_metrics_of_ones_own_on_the_command_line(data, folder_options, model, dotted, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "extension")
    model.save_pretrained(tmp_path / "net")
    metric = "{name: my_lab.metrics:BoundaryF1, options: {pixels: 1}}"
    given = ["--metrics.boundary", metric] if dotted else ["--metrics", f"{{boundary: {metric}}}"]
    options = ["--split", "val", "--device", "cpu", "--output", str(tmp_path / "out"), *folder_options]
    assert main(["evaluate", str(tmp_path / "net"), *options, *given, "--import", "my_lab"]) == 0
    expected = evaluate(model, data, "val", device="cpu", metrics={"boundary": BoundaryF1(1)}, progress=False).metrics
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["metrics"] == expected
    line = f"boundary: {expected['boundary']:.4g}"
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "out" / "report.html").read_text()


def test_a_model_folder_of_a_run_is_evaluated_as_the_run(data, model, tmp_path, capsys):
    run = tmp_path / "run"
    model.save_pretrained(run / "model")
    sanet.TrainConfig(data=data).save(run / "config.yaml")
    assert main(["evaluate", str(run / "model"), "--split", "val", "--device", "cpu"]) == 0
    assert read_scores(run / "val").protocol.data == "folder"


def test_a_split_that_the_dataset_has_not_names_those_it_has(data, folder_options, model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "net")
    assert main(["evaluate", str(tmp_path / "net"), *folder_options]) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in ("'test'", "val", "--split"))


@pytest.mark.slow
def test_metrics_are_imported_only_where_one_is_asked_for():
    code = "import sys, sanet.evaluation.evaluate; assert 'torchmetrics' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_only_the_first_process_writes_and_labels(data, model, tmp_path):
    def run():
        from sanet import distributed

        evaluate(model, data, "val", tmp_path / str(distributed.rank()), device="cpu", progress=False)

    run_in_processes(2, run)
    assert [path.name for path in tmp_path.iterdir() if path.name.isdecimal()] == ["0"]


class Wide(Images):
    """Images of five channels of 16 bits."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return sample._replace(image=torch.cat([sample.image, sample.image[:2]]).int() * 257)


def test_images_of_other_channels_are_scored_and_shown(tmp_path):
    dataset = Wide(3)
    found = evaluate_dataset(label_by_channel, dataset, protocol_of(sanet.DataConfig(), dataset), progress=False)
    assert [example.image.shape[2] for example in found.worst] == [3, 3]
    assert {example.image.dtype for example in found.worst} == {np.dtype(np.uint8)}
    write_report(tmp_path / "report.html", found, [], "wide")
    assert (tmp_path / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("unreadable", [0, 1])
def test_an_image_that_one_process_cannot_read_stops_all(unreadable):
    def run():
        with pytest.raises(DataError, match=f"image {unreadable} cannot be read"):
            scores_in(5, unreadable)

    run()
    run_in_processes(2, run)


def test_masks_without_names_are_those_of_the_model(tmp_path):
    """A model that was trained on masks of 0 and 255 scores others of them, in a folder that says nothing."""
    labels = LabelSet(("soil", "leaf"), values=(("0", "soil"), ("255", "leaf")))
    model = create_model("fcn", "test_resnet", labels=labels)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in ("a7", "b9", "c3"):
        values = np.random.default_rng(len(name)).choice(np.array([0, 255], np.uint8), (40, 40))
        Image.fromarray(values).save(tmp_path / "masks" / f"{name}.png")
        Image.fromarray(np.stack([values] * 3, -1)).save(tmp_path / "images" / f"{name}.png")
    found = evaluate(model, DataConfig(root=str(tmp_path)), "val", progress=False)
    assert found.labels.names == ("soil", "leaf")
    assert found.confusion.sum() == 40 * 40
