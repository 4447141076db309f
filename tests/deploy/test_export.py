"""Exports against the network, by the runtimes' own readers; and what is not to be left behind."""

import json
import re
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm.layers.padding
import torch
import torch.nn.functional as F
from PIL import Image
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.layers.std_conv import StdConv2dSame
from torch import nn

import sanet.deploy.export as exports
from sanet.cli.main import main
from sanet.config import DataConfig, InferenceConfig
from sanet.data.catalog import data_source
from sanet.deploy.export import default_path, export, format_of
from sanet.deploy.padding import SamePadded, replace_padding, same_padding
from sanet.deploy.parity import CASES, LARGEST_DIFFERENCE, TIE, ParityCase, differences, require_parity
from sanet.deploy.quantize import Int8Cost, evenly_spaced, export_int8, quantize, require_small_drop
from sanet.evaluation.evaluate import evaluate
from sanet.files import hidden, written
from sanet.inference.exported import open_exported
from sanet.inference.predictor import Predictor
from sanet.inference.views import class_probabilities
from sanet.models.networks import create_model
from sanet.models.sanet import HeadOutput
from sanet.models.store import BUNDLED
from sanet.structures import LabelSet, SanetError, UsageError

LABELS = LabelSet(("sky", "Straße", "car"), ((1, 2, 3), (200, 10, 0), (0, 255, 7)), ignore_index=250, background=1)
# Neither in CASES nor the traced example.
SIZES = [(1, 32, 33), (4, 75, 111), (2, 201, 37), (7, 40, 32), (1, 181, 203)]


@pytest.fixture(scope="module")
def model():
    """A network whose batch norms have seen something, in training mode."""
    torch.manual_seed(0)
    network = create_model("sanet", "test_resnet", labels=LABELS, output_stride=8, readout="sum", shorter_side=64)
    network.train()
    network(torch.rand(4, 3, 96, 96))
    return network


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """File and report."""
    path = tmp_path_factory.mktemp("exports") / "model.onnx"
    return path, export(model, path, progress=False)


def opened_elsewhere(path):
    """Pictures to logits by the runtime alone, nothing of this package in between."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.slow
def test_equals_the_network_at_sizes_that_nobody_tried(exported, model):
    network = deepcopy(model).eval()
    path, _ = exported
    ways = [open_exported(path, "cpu"), opened_elsewhere(path)]
    for size in SIZES:
        images = torch.randint(0, 256, (size[0], 3, *size[1:]), dtype=torch.uint8)
        with torch.inference_mode():
            expected = network(images).logits
            for found in (way(images) for way in ways):
                assert found.dtype == torch.float32
                assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
                assert torch.equal(found.argmax(1), expected.argmax(1))


def test_the_network_stays_as_it_is(exported, model):
    assert model.training
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_the_file_says_what_it_is(exported, model):
    path, report = exported
    found = open_exported(path, "cpu")
    assert found.labels == LABELS
    assert found.metadata == json.loads(json.dumps(report.metadata))
    assert {key: found.metadata[key] for key in ("format", "network", "backbone", "output_stride", "options")} == {
        "format": "onnx",
        "network": "sanet",
        "backbone": "test_resnet",
        "output_stride": 8,
        "options": json.loads(json.dumps(model.options)),
    }
    assert model.options["readout"] == "sum"
    assert found.metadata["output"]["shape"] == ["batch", 3, "height", "width"]


def test_the_file_labels_like_the_model_without_being_told_of_its_size(exported, model):
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    file, network = Predictor(exported[0], "cpu"), Predictor(deepcopy(model), "cpu")
    assert file.inference == network.inference == InferenceConfig(shorter_side=64)
    with torch.inference_mode():
        found, expected, own = (
            class_probabilities(predictor.logits_of, image[None], views)[0]
            for predictor, views in (
                (file, file.inference),
                (network, network.inference),
                (file, InferenceConfig(shorter_side=0)),
            )
        )
    assert (found - expected).abs().max() < 1e-4
    assert (found - own).abs().max() > 1e-3


def test_the_report_covers_odd_sizes_and_batches(exported):
    path, report = exported
    assert len({case.batch for case in report.cases}) > 2
    assert any(case.height % 2 and case.width % 2 for case in report.cases)
    assert (1, 32, 32) in {(case.batch, case.height, case.width) for case in report.cases}
    assert all(case.difference <= LARGEST_DIFFERENCE and case.equal_labels == 1 for case in report.cases)
    assert all(case.eager_seconds > 0 < case.export_seconds for case in report.cases)
    assert report.bytes == path.stat().st_size
    stored = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    assert [ParityCase(**case) for case in stored["cases"]] == list(report.cases)
    assert stored["metadata"] == open_exported(path, "cpu").metadata
    assert all(f"{batch} x {width}x{height}" in str(report) for batch, height, width in CASES)


def test_the_file_names_no_folder_of_this_machine(exported):
    content = exported[0].read_bytes()
    for folder in (Path(exports.__file__).parents[3], Path(torch.__file__).parents[1]):
        assert str(folder).encode() not in content


def test_onnx_is_valid_and_its_sizes_are_free(exported):
    file = onnx.load(exported[0])
    onnx.checker.check_model(file, full_check=True)
    sizes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in file.graph.input]
    assert sizes == [["batch", 3, "height", "width"]]
    assert [value.name for value in file.graph.output] == ["logits"]


def nudge_a_weight(graph):
    weights = next(tensor for tensor in graph.initializer if len(tensor.dims) == 4)
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * np.float32(1.01), weights.name))


def fix_the_size(graph):
    (last,) = (node for node in graph.node if "logits" in node.output)
    last.output[0] = "free"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([181, 203]), "sides"))
    graph.node.append(onnx.helper.make_node("Resize", ["free", "", "", "sides"], ["logits"], axes=[2, 3]))


BREAKS = {"a weight": nudge_a_weight, "the size of the example": fix_the_size}


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return create_model("fcn", "test_resnet", labels=LABELS)


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_export_leaves_what_was_there(broken, exported, model, monkeypatch, tmp_path):
    def write_broken(network, path, metadata, opset):
        file = onnx.load(exported[0])
        BREAKS[broken](file.graph)
        onnx.save(file, path)

    monkeypatch.setattr(exports, "write_onnx", write_broken)
    path = tmp_path / "model.onnx"
    with written(path) as aside:
        aside.write_text("as before")
    with pytest.raises(SanetError, match=r"batch of \d at \d+x\d+"):
        export(model, path, progress=False)
    assert [file.name for file in tmp_path.iterdir() if not hidden(file)] == [path.name]
    assert path.read_text() == "as before"


def test_an_export_that_cannot_be_made_is_named(small, monkeypatch, tmp_path):
    def impossible(network, path, metadata, opset):
        raise ValueError("no such operator\nand so on")

    monkeypatch.setattr(exports, "write_onnx", impossible)
    with pytest.raises(SanetError, match=r"exported as ONNX: no such operator\. A head"):
        export(small, tmp_path / "model.onnx", progress=False)
    assert list(tmp_path.iterdir()) == []


class Branches(torch.nn.Module):
    """A head whose way depends on a value."""

    def __init__(self, levels, num_classes):
        super().__init__()
        self.classify = torch.nn.Conv2d(levels[-1].channels, num_classes, 1)

    def forward(self, features):
        mask = self.classify(features[-1])
        if mask.mean() > 0:
            mask = mask + 1
        return HeadOutput(mask, mask)


def test_what_the_exporter_prints_is_logged_and_one_line_is_raised(tmp_path, capfd, caplog):
    network = create_model(Branches, "test_resnet", num_classes=2)
    with caplog.at_level("DEBUG", "sanet"), pytest.raises(SanetError) as caught:
        export(network, tmp_path / "model.onnx", progress=False)
    (line,) = str(caught.value).splitlines()
    assert Path(__file__).name in line
    assert "if mask.mean() > 0" in line
    assert caught.value.__suppress_context__
    assert capfd.readouterr() == ("", "")
    assert len(caplog.text.splitlines()) > 100
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(model, tmp_path):
    with pytest.raises(UsageError, match=r"model.pt2: a file of format onnx must end in .onnx"):
        export(model, tmp_path / "model.pt2")


def test_differences_of_labels_count_only_where_there_is_no_tie():
    eager = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1 - 0.5 * TIE, 1 - 9 * TIE, 0.0, 0.0]]).view(1, 2, 2, 2)
    exported = eager.clone()
    exported[:, 1, 0] += 10 * TIE
    difference, equal = differences(eager, exported)
    assert difference == pytest.approx(10 * TIE / (eager**2).mean().sqrt().item(), rel=1e-2)
    assert equal == 0.75
    assert differences(eager, eager) == (0, 1)
    assert differences(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) == (0, 1)
    assert differences(eager, eager[..., :1]) == (float("inf"), 0)


@pytest.mark.parametrize(("difference", "equal"), [(2 * LARGEST_DIFFERENCE, 1), (float("nan"), 1), (0, 0.998)])
def test_the_worst_size_is_named(difference, equal):
    good, bad = ParityCase(1, 32, 40, 0, 1, 1, 1), ParityCase(3, 51, 77, difference, equal, 1, 1)
    require_parity([good], Path("a.onnx"))
    with pytest.raises(SanetError, match=r"a\.onnx is not written: for a batch of 3 at 77x51 pixels"):
        require_parity([good, bad], Path("a.onnx"))


def test_same_padding_in_integers_is_that_of_timm():
    for size in range(1, 80):
        for kernel, stride, dilation in [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (2, 3, 1), (5, 2, 1), (3, 1, 4)]:
            expected = timm.layers.padding.get_same_padding(size, kernel, stride, dilation)
            assert same_padding(size, kernel, stride, dilation) == expected


@pytest.mark.parametrize("side", [9, 10, 13])
def test_padded_layers_compute_what_those_of_timm_do(side):
    torch.manual_seed(0)
    layers = nn.Sequential(
        Conv2dSame(3, 4, 3, stride=2), nn.Sequential(AvgPool2dSame(2, 1)), Conv2dSame(4, 4, 5, dilation=2, groups=4),
        MaxPool2dSame(3, 2), StdConv2dSame(4, 4, 3, stride=2, padding="same"), StdConv2dSame(4, 3, 3, padding="same"),
    )  # fmt: skip
    maps = torch.randn(2, 3, side, side + 4)
    expected, names = layers(maps), len(layers.state_dict())
    replace_padding(layers)
    assert torch.equal(layers(maps), expected)
    assert len(layers.state_dict()) == names
    assert [type(layer) is SamePadded for layer in (*layers, layers[1][0])] == [True, False, *[True] * 3, False, True]


def test_the_default_place_is_beside_the_model(tmp_path, monkeypatch):
    (tmp_path / "run.v2" / "model").mkdir(parents=True)
    assert default_path(str(tmp_path / "run.v2" / "model"), "onnx") == tmp_path / "run.v2" / "model.onnx"
    assert default_path(f"{tmp_path}/run.v2/", "onnx-int8") == tmp_path / "run.v2.int8.onnx"
    assert [*map(format_of, map(Path, ("a.xml", "a.int8.XML", "a.onnx")))] == ["openvino", "openvino-int8", "onnx"]
    assert default_path("hf:someone/on-the-hub", "onnx") == Path("on-the-hub.onnx")
    assert default_path(str(BUNDLED["streets"]), "onnx") == Path("streets.onnx")  # not into the package
    monkeypatch.chdir(tmp_path / "run.v2" / "model")
    assert default_path(".", "onnx") == tmp_path / "run.v2" / "model.onnx"


# int8


@pytest.fixture(scope="module")
def trained():
    """A small network that knows a little about scenes."""
    torch.manual_seed(0)
    scenes = data_source(DataConfig()).open("train")
    network = create_model("fcn", "test_efficientnet", labels=scenes.labels, output_stride=16).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for step in range(30):
        samples = [scenes[index] for index in range(6 * step, 6 * step + 6)]
        logits = network(torch.stack([sample.image for sample in samples])).logits
        optimizer.zero_grad()
        F.cross_entropy(logits, torch.stack([sample.mask for sample in samples])).backward()
        optimizer.step()
    return network.eval()


@pytest.mark.slow
def test_int8_says_what_it_costs(trained, few_scenes, tmp_path):
    """Also of a file of labels; by the command line, and of logits: test_openvino.py."""
    path = tmp_path / "model.int8.onnx"
    how = {"calibration": 8, "max_miou_drop": 0.1, "outputs": "labels+confidence", "progress": False}
    report = export_int8(trained, path, DataConfig(), **how)
    cost = report.cost
    for model, miou in ((trained, cost.float_miou), (path, cost.int8_miou)):
        scores = evaluate(model, DataConfig(), "val", device="cpu", progress=False).scores
        assert scores.miou == miou
    assert cost.float_miou > 0.2
    assert (cost.data, cost.split, cost.images, cost.calibration_images) == ("scenes", "val", 10, 8)
    assert 0.9 < cost.equal_labels < 1
    assert report.bytes == path.stat().st_size < 0.6 * cost.float_bytes
    stored = open_exported(path, "cpu").metadata
    assert stored["format"] == "onnx-int8"
    assert stored["quantization"] == json.loads(json.dumps(asdict(cost)))
    assert json.loads(path.with_name(f"{path.name}.json").read_text())["metadata"] == stored
    assert re.search(rf"mIoU +{cost.float_miou:.4f} float, {cost.int8_miou:.4f} int8", str(report))

    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    eager, small = Predictor(trained, "cpu"), Predictor(path, "cpu")
    scene = data_source(DataConfig()).open("test")[0].image[None]
    for size, least in {(32, 32): 0, (33, 47): 0, (97, 131): 0.8, (128, 160): 0.9, (255, 201): 0.9}.items():
        image = F.interpolate(scene, size)[0].permute(1, 2, 0).numpy()
        agreement = (eager(image) == small(image)).mean()
        assert agreement > least


def test_int8_that_costs_too_much_is_refused():
    cost = Int8Cost("scenes", "val", 48, 8, 10, 0.75, 0.5, {}, 0.9, 1, 1)
    require_small_drop(cost, 0.25, Path("a.int8.onnx"))
    with pytest.raises(SanetError, match=r"a\.int8\.onnx .*0\.7500 .*0\.5000.*--max-miou-drop"):
        require_small_drop(cost, 0.24, Path("a.int8.onnx"))


@pytest.mark.slow
def test_int8_asks_for_what_it_needs(model, trained, tmp_path):
    with pytest.raises(SanetError, match="sky, Straße, car"):
        export_int8(model, tmp_path / "m.int8.onnx", DataConfig())
    with pytest.raises(UsageError, match=r"must end in \.int8\.onnx"):
        export_int8(trained, tmp_path / "m.onnx", DataConfig())
    with pytest.raises(UsageError, match="calibration 0"):
        export_int8(trained, tmp_path / "m.int8.onnx", DataConfig(), calibration=0)
    with pytest.raises(UsageError, match="unknown split 'vall'"):
        export_int8(trained, tmp_path / "m.int8.onnx", DataConfig(), "vall")


def test_what_onnxruntime_cannot_quantise_is_named(tmp_path):
    (tmp_path / "float.onnx").write_text("no network")
    with pytest.raises(SanetError, match="onnxruntime cannot quantise the network"):
        quantize(tmp_path / "float.onnx", tmp_path / "int8.onnx", iter([]))


def test_evenly_spaced():
    assert evenly_spaced(10, 3) == [0, 4, 9]
    assert evenly_spaced(3, 5) == [0, 1, 2]
    assert evenly_spaced(10, 1) == [0]
    assert len(set(evenly_spaced(367, 32))) == 32


# The command line


@pytest.mark.slow
def test_export_predict_evaluate(trained, few_scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained.save_pretrained("model")
    Image.fromarray(np.zeros((45, 60, 3), np.uint8)).save("photo.png")
    assert main(["export", "model", "--format", "onnx"]) == 0
    assert "equal labels" in capsys.readouterr().out
    assert Path("model.onnx").exists()
    for name in ("model", "model.onnx"):
        assert main(["predict", "photo.png", "--model", name, "--output", f"out-{name}"]) == 0
        options = ["--split", "val", "--output", f"scores-{name}", "--data.name", "scenes"]
        assert main(["evaluate", name, *options]) == 0
    assert Path("out-model/masks/photo.png").read_bytes() == Path("out-model.onnx/masks/photo.png").read_bytes()
    scores = [json.loads(Path(f"scores-{name}/scores.json").read_text()) for name in ("model", "model.onnx")]
    assert scores[0]["confusion"] == scores[1]["confusion"]
    assert main(["export", "model", "--format", "onnx-int8", "--output", "model.onnx"]) == 2
    assert "must end in .int8.onnx" in capsys.readouterr().err
