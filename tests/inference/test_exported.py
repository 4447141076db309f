"""Exported files in use, and files that someone made to do harm."""

import json
import random
import resource
import sys
from contextlib import suppress
from time import perf_counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from sanet.config import DataConfig, InferenceConfig
from sanet.deploy.export import prepare, write
from sanet.evaluation.evaluate import evaluate
from sanet.inference.exported import LONGEST_METADATA, METADATA, is_exported, open_exported
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.structures import LabelSet, SanetError, UsageError

LABELS = LabelSet(("sky", "road", "car"), ((1, 2, 3), (200, 10, 0), (0, 255, 7)), ignore_index=250, background=1)
DESCRIPTION = {"labels": {"names": LABELS.names, "colors": LABELS.colors, "ignore_index": 250, "background": 1}}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("fcn", "test_resnet", labels=LABELS).eval()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The model as ONNX, and its directory."""
    folder = tmp_path_factory.mktemp("exports")
    found = {"directory": folder / "model", "onnx": folder / "model.onnx"}
    model.save_pretrained(found["directory"])
    write(prepare(model), found["onnx"], DESCRIPTION, progress=False)
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures and masks of different, odd sizes, in the layout of a data set."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for index, size in enumerate([(40, 50), (33, 71), (96, 61), (20, 45)]):
        for kind, array in {
            "images": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
            "masks": rng.integers(0, 3, size, dtype=np.uint8),
        }.items():
            path = root / "val" / kind / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return root


@pytest.mark.slow
def test_predicts_like_the_model_directory(files, photos):
    directory, onnx = (Predictor(files[name], "cpu", InferenceConfig(window=64)) for name in ("directory", "onnx"))
    assert directory.labels == onnx.labels == LABELS
    for path in (photos / "val" / "images").iterdir():
        assert np.array_equal(directory(path), onnx(path))


@pytest.mark.slow
def test_scores_like_the_model_directory(files, photos, tmp_path):
    data = DataConfig("folder", str(photos), LABELS.names)
    expected, found = (
        evaluate(files[name], data, "val", tmp_path / name, device="cpu", progress=False)
        for name in ("directory", "onnx")
    )
    assert np.array_equal(expected.confusion, found.confusion)
    assert found.facts["model"] == str(files["onnx"])
    other = DataConfig("folder", str(photos), ("sky", "car", "road"))
    with pytest.raises(SanetError, match="sky, road, car"):
        evaluate(files["onnx"], other, "val", device="cpu", progress=False)


@pytest.mark.slow
def test_what_it_does_not_take_is_named(files):
    exported = open_exported(files["onnx"], "cpu")
    with pytest.raises(UsageError, match=r"torch.float32 of shape \(1, 3, 40, 40\)"):
        exported(torch.zeros(1, 3, 40, 40))
    with pytest.raises(UsageError, match=r"\(1, 4, 40, 40\)"):
        exported(torch.zeros(1, 4, 40, 40, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"31, 40\)"):
        exported(torch.zeros(1, 3, 31, 40, dtype=torch.uint8))
    with pytest.raises(UsageError, match="'gpu' cannot be used"):
        open_exported(files["onnx"], "gpu")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named(files):
    with pytest.raises(UsageError, match="'cuda'"):
        Predictor(files["onnx"], "cuda")


def test_a_directory_is_no_exported_file(model, tmp_path):
    model.save_pretrained(tmp_path / "model.onnx")
    assert not is_exported(tmp_path / "model.onnx")
    assert Predictor(tmp_path / "model.onnx", "cpu").labels == LABELS


@pytest.mark.slow
def test_onnx_without_its_runtime_names_the_extra(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SanetError, match=r"pip install 'sanet-segmentation\[export\]'"):
        Predictor(files["onnx"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SanetError, match=r"no exported file .*nothing\.onnx"):
        Predictor(tmp_path / "nothing.onnx")


@pytest.mark.slow
def test_the_suffix_counts_in_any_case(files, photos, tmp_path):
    path = tmp_path / "MODEL.ONNX"
    path.write_bytes(files["onnx"].read_bytes())
    image = photos / "val" / "images" / "0.png"
    assert np.array_equal(Predictor(path, "cpu")(image), Predictor(files["onnx"], "cpu")(image))


# Below: files that are not of `sanet export`, some of which would do harm if they were trusted.


@pytest.mark.parametrize("suffix", [".ts", ".pt2", ".pth", ".TS"])
def test_programs_are_refused_unopened(suffix, photos, tmp_path, capsys):
    """Reading one is not even tried: what is in it does not matter."""
    from sanet.cli.main import main

    path = tmp_path / f"old{suffix}"
    path.write_bytes(b"")
    for opened in (Predictor, open_exported):
        with pytest.raises(SanetError, match=rf"old\{suffix} is not opened: .* program.*--format onnx"):
            opened(path)
    picture, output = str(photos / "val" / "images" / "0.png"), ["--output", str(tmp_path / "out")]
    data = ["--data.name", "folder", "--data.root", str(photos), "--data.classes", "[sky, road, car]"]
    for command in (
        ["predict", picture, "--model", str(path), *output],
        ["evaluate", str(path), "--split", "val", *data, *output],
        ["visualize", picture, "--models", str(path), "--output", str(tmp_path / "figure.png")],
    ):
        assert main(command) != 0
        assert f"old{suffix} is not opened" in capsys.readouterr().err


def tiny(description=DESCRIPTION, channels=3):
    """Three classes by one convolution of 1x1."""
    weights = np.random.default_rng(0).normal(size=(3, channels, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["float", "weights"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", channels, "height", "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {METADATA: json.dumps(description)})
    return model


@pytest.fixture
def stored(tmp_path):
    """A function that stores an ONNX model, or bytes, and returns the path."""

    def store(content):
        path = tmp_path / "a.onnx"
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return path

    return store


IMAGES = torch.randint(0, 256, (2, 3, 33, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_tiny_network_is_read(stored):
    path = stored(tiny())
    weights = torch.from_numpy(onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0]).copy())
    found = open_exported(path, "cpu")
    assert found.labels == LABELS
    assert torch.allclose(found(IMAGES), torch.nn.functional.conv2d(IMAGES.float(), weights), atol=1e-3)


def damaged(content, random):
    """Bits that flip, an end that is missing, other bytes in a place, or other metadata."""
    content = bytearray(content)
    place = random.randrange(len(content))
    kind = random.randrange(4)
    if kind == 0:
        for _ in range(random.choice([1, 1, 3, 9])):
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif kind == 1:
        del content[place:]
    elif kind == 2:
        content[place : place + random.randrange(20)] = random.randbytes(random.randrange(20))
    else:
        model, text = onnx.load_model_from_string(bytes(content)), json.dumps(DESCRIPTION)
        place = random.randrange(len(text))
        text = text[:place] + random.choice(["", "null,", "[[", "-1e999", '"', "9" * 400, "{}", "true"]) + text[place:]
        helper.set_model_props(model, {METADATA: text})
        return model.SerializeToString()
    return bytes(content)


def test_damaged_files_are_read_or_refused(stored):
    """All in this process: onnxruntime neither crashes nor takes seconds or a gigabyte over any of them."""
    whole, read = tiny().SerializeToString(), 0
    start, before = perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(300):
        path = stored(damaged(whole, random.Random(seed)))
        with suppress(SanetError):
            assert open_exported(path, "cpu")(IMAGES).shape == (2, 3, 33, 40)
            read += 1
    assert 0 < read < 150
    assert perf_counter() - start < 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # in KiB


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        '{"labels": null}',
        '{"labels": {"names": []}}',
        '{"labels": {"names": "abc"}}',
        '{"labels": {"names": ["a", "b", null]}}',
        '{"labels": {"names": ["a", "b"]}}',
        '{"labels": {"names": ["a", "b", "b"]}}',
        '{"labels": {"names": ["a", "b", "c"], "evil": 1}}',
        '{"labels": {"names": ["a", "b", "c"], "colors": [[0, 0, 0]]}}',
        '{"labels": {"names": ["a", "b", "c"], "colors": [[0, 0, 0.5], [1, 1, 1], [2, 2, 2]]}}',
        '{"labels": {"names": ["a", "b", "c"], "ignore_index": "255"}}',
        '{"labels": {"names": ["a", "b", "c"], "ignore_index": NaN}}',
        f'{{"labels": {{"names": ["a", "b", "c"], "ignore_index": {"9" * 5000}}}}}',
        '{"labels": {"names": ["a", "b", "c"], "background": [0]}}',
        '{"labels": {"names": ["a", "b", "c"], "background_ignored": "no"}}',
        "[" * 200_000,
    ],
    ids=lambda text: text[:60],
)
def test_metadata_of_other_types_is_refused(text, stored):
    model = tiny()
    helper.set_model_props(model, {METADATA: text})
    with pytest.raises(SanetError, match=r"a\.onnx cannot be read"):
        Predictor(stored(model), "cpu")


def test_metadata_is_read_up_to_a_size(stored):
    """It is measured before it is parsed: a parsed list of gigabytes would take tens of them."""
    model, text = tiny(), json.dumps(DESCRIPTION)
    helper.set_model_props(model, {METADATA: text.ljust(LONGEST_METADATA)})
    assert open_exported(stored(model), "cpu").labels == LABELS
    helper.set_model_props(model, {METADATA: text.ljust(LONGEST_METADATA + 1)})
    with pytest.raises(SanetError, match=rf"a\.onnx cannot be read: .*{METADATA} has {LONGEST_METADATA + 1} char"):
        open_exported(stored(model), "cpu")


def test_metadata_that_is_no_utf8_is_refused(stored):
    with pytest.raises(SanetError, match=r"a\.onnx cannot be read"):
        Predictor(stored(tiny().SerializeToString().replace(b"road", b"ro\xffd")), "cpu")


def in_another_file(model):
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "beside.bin", 0, 36)
    tensor.ClearField("raw_data")


def in_an_attribute_in_another_file(model):
    tensor = onnx.numpy_helper.from_array(np.zeros(9, np.float32))
    onnx.external_data_helper.set_external_data(tensor, "beside.bin", 0, 36)
    tensor.ClearField("raw_data")
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def of_another_domain(model):
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def with_control_flow(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], [], body=body))


def with_a_function(model):
    model.functions.append(helper.make_function("own", "f", [], [], [], [helper.make_opsetid("", 17)]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (in_another_file, "lies in another file"),
        (in_an_attribute_in_another_file, "lies in another file"),
        (of_another_domain, "com.microsoft"),
        (with_control_flow, "control flow"),
        (with_a_function, "functions"),
    ],
)
def test_more_than_a_network_is_refused(change, reason, stored):
    model = tiny()
    change(model)
    path = stored(model)
    (path.parent / "beside.bin").write_bytes(bytes(36))
    with pytest.raises(SanetError, match=rf"a\.onnx cannot be read: .*{reason}"):
        Predictor(path, "cpu")


def rename(value, name):
    value.name = name


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph.output.append(helper.make_tensor_value_info("float", TensorProto.FLOAT, None)),
        lambda graph: graph.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.INT32),
        lambda graph: graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 4),
        lambda graph: (rename(graph.input[0], "x"), graph.node[0].input.__setitem__(0, "x")),
        lambda graph: (rename(graph.output[0], "y"), graph.node[1].output.__setitem__(0, "y")),
    ],
)
def test_another_input_or_output_is_refused(change, stored):
    model = tiny()
    change(model.graph)
    with pytest.raises(SanetError, match=r"a\.onnx cannot be read"):
        Predictor(stored(model), "cpu")


@pytest.mark.parametrize("padding", [[0, 0, 0, 1], [3, 0, 0, 0], [-20, -20, -20, -20]])
def test_logits_of_another_size_are_refused(padding, stored):
    model = tiny()
    model.graph.node[1].attribute.append(helper.make_attribute("pads", padding))
    with pytest.raises(SanetError, match=r"a\.onnx"):
        open_exported(stored(model), "cpu")(IMAGES)


def test_other_channels(stored):
    path = stored(tiny({**DESCRIPTION, "in_chans": 5}, channels=5))
    image = np.random.default_rng(0).integers(0, 256, (47, 61, 5), dtype=np.uint8)
    exported, weights = Predictor(path, "cpu"), onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    assert np.array_equal(exported(image), (image @ weights[..., 0, 0].T).argmax(-1))
    with pytest.raises(UsageError, match=r"\(47, 61, 3\)"):
        exported(image[..., :3])
