"""Exported files in use, and files that someone made to do harm."""

import json
import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from sanet.config import DataConfig, ViewsConfig
from sanet.deploy.export import SUFFIXES, prepare, trace, write
from sanet.evaluation.evaluate import evaluate
from sanet.inference.archive import METADATA
from sanet.inference.exported import is_exported, open_exported
from sanet.inference.files import predict_files
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.structures import LabelSet, SanetError, UsageError

LABELS = LabelSet(("sky", "road", "car"), ((1, 2, 3), (200, 10, 0), (0, 255, 7)), ignore_index=250, background=1)
DESCRIPTION = {"labels": {"names": LABELS.names, "colors": LABELS.colors, "ignore_index": 250, "background": 1}}
FORMATS = ("onnx", "torch-export", "torchscript")
each_format = pytest.mark.parametrize("format", FORMATS)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("fcn", "test_resnet", labels=LABELS).eval()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The model in every format, by format, and its directory."""
    folder = tmp_path_factory.mktemp("exports")
    found = {"directory": folder / "model"}
    model.save_pretrained(found["directory"])
    for format in FORMATS:
        found[format] = folder / f"model{SUFFIXES[format]}"
        write(prepare(model), found[format], format, DESCRIPTION, progress=False)
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


@each_format
def test_predicts_like_the_model_directory(format, files, photos, tmp_path):
    for name in ("directory", format):
        predictor = Predictor(files[name], "cpu", ViewsConfig(window=64))
        assert predictor.labels == LABELS
        assert predict_files(predictor, [str(photos / "val" / "images")], tmp_path / name, progress=False) == []
    masks = sorted((tmp_path / "directory" / "masks").iterdir())
    assert len(masks) == 4
    for mask in masks:
        assert mask.read_bytes() == (tmp_path / format / "masks" / mask.name).read_bytes()


@each_format
def test_scores_like_the_model_directory(format, files, photos, tmp_path):
    data = DataConfig("folder", str(photos), LABELS.names)
    expected, found = (
        evaluate(files[name], data, "val", tmp_path / name, device="cpu", progress=False)
        for name in ("directory", format)
    )
    assert np.array_equal(expected.confusion, found.confusion)
    assert found.facts["model"] == str(files[format])
    other = DataConfig("folder", str(photos), ("sky", "car", "road"))
    with pytest.raises(SanetError, match="sky, road, car"):
        evaluate(files[format], other, "val", device="cpu", progress=False)


@each_format
def test_what_it_does_not_take_is_named(format, files):
    exported = open_exported(files[format], "cpu")
    with pytest.raises(UsageError, match=r"torch.float32 of shape \(1, 3, 40, 40\)"):
        exported(torch.zeros(1, 3, 40, 40))
    with pytest.raises(UsageError, match=r"\(1, 4, 40, 40\)"):
        exported(torch.zeros(1, 4, 40, 40, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"\(31, 40\) pixels"):
        exported(torch.zeros(1, 3, 31, 40, dtype=torch.uint8))
    with pytest.raises(UsageError, match="'gpu' cannot be used"):
        open_exported(files[format], "gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@each_format
def test_a_gpu_that_is_not_there_is_named(format, files):
    with pytest.raises(UsageError, match="'cuda'"):
        Predictor(files[format], "cuda")


def test_a_directory_is_no_exported_file(model, tmp_path):
    model.save_pretrained(tmp_path / "model.onnx")
    assert not is_exported(tmp_path / "model.onnx")
    assert Predictor(tmp_path / "model.onnx", "cpu").labels == LABELS


def test_onnx_without_its_runtime_names_the_extra(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SanetError, match=r"pip install 'sanet-segmentation\[export\]'"):
        Predictor(files["onnx"])
    assert Predictor(files["torchscript"], "cpu").labels == LABELS


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".ts"])
def test_a_missing_file_is_named(suffix, tmp_path):
    with pytest.raises(SanetError, match=f"no exported file .*nothing{suffix}"):
        Predictor(tmp_path / f"nothing{suffix}")


@each_format
@pytest.mark.parametrize("content", ["empty", "text", "truncated", "a zip of something else"])
def test_a_broken_file_is_named(format, content, files, tmp_path):
    whole = files[format].read_bytes()
    broken = tmp_path / f"broken{SUFFIXES[format]}"
    if content == "a zip of something else":
        with zipfile.ZipFile(broken, "w") as archive:
            archive.writestr("notes/a.txt", "a")
    else:
        broken.write_bytes({"empty": b"", "text": b"not a network", "truncated": whole[: len(whole) // 2]}[content])
    with pytest.raises(SanetError, match=f"broken{SUFFIXES[format]}"):
        Predictor(broken)


class Double(torch.nn.Module):
    def forward(self, images):
        return images * 2


@each_format
def test_files_of_others_are_not_taken_for_ours(format, tmp_path):
    path = tmp_path / f"other{SUFFIXES[format]}"
    example = torch.zeros(1, 3, 32, 32)
    if format == "onnx":
        value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
        ])  # fmt: skip
        onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    elif format == "torch-export":
        program = torch.export.export(Double(), (example,))
        program.example_inputs = None
        torch.export.save(program, path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(Double(), (example,)), path)
    with pytest.raises(SanetError, match=f"other{SUFFIXES[format]} does not say which classes it has"):
        Predictor(path, "cpu")


# Below: files that would run something if they were trusted.


class Payload:
    """When it is unpickled, a folder appears."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return Path.mkdir, (Path(self.marker),)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def payload(marker):
    content = pickle.dumps(Payload(marker), protocol=2)
    pickle.loads(content)
    assert marker.exists()
    marker.rmdir()
    return content


def rewrite(source, target, changes):
    """Copy an archive; ``changes`` maps names below its top folder to contents, or to functions of the old ones."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        top = old.namelist()[0].partition("/")[0]
        contents = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
        for name, change in changes.items():
            contents[name] = change(contents[name]) if callable(change) else change
        for name, content in contents.items():
            new.writestr(f"{top}/{name}", content)
    return target


def in_json(change):
    """A change of bytes from one of the parsed JSON."""

    def changed(content):
        parsed = json.loads(content)
        change(parsed)
        return json.dumps(parsed).encode()

    return changed


@each_format
def test_nothing_is_unpickled(format, files, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something is being unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch.serialization, "load", refuse)
    logits = open_exported(files[format], "cpu")(torch.zeros(2, 3, 33, 40, dtype=torch.uint8))
    assert logits.shape == (2, 3, 33, 40)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".ts"])
def test_a_pickle_by_another_name_is_refused(suffix, payload, marker, tmp_path):
    (tmp_path / f"evil{suffix}").write_bytes(payload)
    with pytest.raises(SanetError, match="cannot be read"):
        Predictor(tmp_path / f"evil{suffix}")
    assert not marker.exists()


@pytest.mark.parametrize("record", ["data.pkl", "constants.pkl"])
def test_a_pickle_in_torchscript_is_refused(record, files, payload, marker, tmp_path):
    evil = rewrite(files["torchscript"], tmp_path / "evil.ts", {record: payload})
    with pytest.raises(SanetError, match=r"evil.ts cannot be read"):
        Predictor(evil, "cpu")
    assert not marker.exists()


@pytest.mark.parametrize(
    "record",
    [
        "data/sample_inputs/model.pt",
        "data/weights/model.pt",
        "data/constants/model.pt",
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/aotinductor/model/model.so",
        "serialized_state_dict.pt",
    ],
)
def test_records_that_torch_export_would_trust_are_refused(record, files, payload, marker, tmp_path):
    evil = rewrite(files["torch-export"], tmp_path / "evil.pt2", {record: payload})
    with pytest.raises(SanetError, match=f"evil.pt2 holds {record}"):
        Predictor(evil, "cpu")
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["weight", "constant"])
def test_a_tensor_that_says_it_is_a_pickle_is_refused(kind, files, payload, marker, tmp_path):
    def mark(parsed):
        entry = dict(next(iter(json.loads(weights)["config"].values())), use_pickle=True)
        parsed["config"]["evil"] = entry | {"path_name": "weight_0" if kind == "weight" else "tensor_0"}

    with zipfile.ZipFile(files["torch-export"]) as archive:
        name = next(name for name in archive.namelist() if name.endswith("model_weights_config.json"))
        weights = archive.read(name)
    config = {
        "weight": "data/weights/model_weights_config.json",
        "constant": "data/constants/model_constants_config.json",
    }
    content = {"weight": "data/weights/weight_0", "constant": "data/constants/tensor_0"}
    evil = rewrite(files["torch-export"], tmp_path / "evil.pt2", {config[kind]: in_json(mark), content[kind]: payload})
    with pytest.raises(SanetError, match="'use_pickle': True"):
        Predictor(evil, "cpu")
    assert not marker.exists()


def evil_size(graph, code):
    size = next(iter(graph["graph"]["tensor_values"].values()))["sizes"]
    size[0] = {"as_expr": {"expr_str": code, "hint": None}}


def evil_target(graph, code):
    graph["graph"]["nodes"][0]["target"] = "torch.os.mkdir"


def evil_name(graph, code):
    graph["graph"]["inputs"].append({"as_tensor": {"name": f"x={code}"}})


def evil_key(graph, code):
    values = graph["graph"]["tensor_values"]
    values[f"x={code}"] = next(iter(values.values()))


def evil_tree(graph, code):
    graph["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, {"type": "os.mkdir", "context": code}])


@pytest.mark.parametrize("change", [evil_size, evil_target, evil_name, evil_key, evil_tree])
def test_code_in_a_program_is_refused(change, files, marker, tmp_path):
    code = f"__import__('os').mkdir('{marker}')"
    evil = rewrite(
        files["torch-export"],
        tmp_path / "evil.pt2",
        {"models/model.json": in_json(lambda parsed: change(parsed["graph_module"], code))},
    )
    with pytest.raises(SanetError, match="not opened"):
        Predictor(evil, "cpu")
    assert not marker.exists()


def test_code_in_what_is_not_needed_is_left_out(files, marker, tmp_path):
    code = f"__import__('os').mkdir('{marker}')"

    def change(parsed):
        parsed["guards_code"] = [code]
        parsed["graph_module"]["graph"]["nodes"][0]["metadata"]["stack_trace"] = code

    evil = rewrite(files["torch-export"], tmp_path / "evil.pt2", {"models/model.json": in_json(change)})
    Predictor(evil, "cpu")(np.zeros((40, 40, 3), np.uint8))
    assert not marker.exists()


class OpensAFile(torch.nn.Module):
    """Does so while it is loaded."""

    path: str

    def __init__(self, path):
        super().__init__()
        self.path, self.data = path, torch.zeros(1)

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        self.data = torch.from_file(self.path, shared=True, size=4)

    def forward(self, images):
        return images


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_that_opens_files_is_refused(marker, tmp_path):
    path = tmp_path / "evil.ts"
    torch.jit.save(torch.jit.script(OpensAFile(str(marker))), path, _extra_files={METADATA: json.dumps(DESCRIPTION)})
    torch.jit.load(path)
    assert marker.exists()
    marker.unlink()
    with pytest.raises(SanetError, match=r"says '(from_file|__setstate__)', which no network needs"):
        Predictor(path, "cpu")
    assert not marker.exists()


@pytest.mark.parametrize("operator", ["from_file.default", "save.default"])
def test_a_program_of_torch_export_that_opens_files_is_refused(operator, files, tmp_path):
    def change(parsed):
        parsed["graph_module"]["graph"]["nodes"][0]["target"] = f"torch.ops.aten.{operator}"

    evil = rewrite(files["torch-export"], tmp_path / "evil.pt2", {"models/model.json": in_json(change)})
    with pytest.raises(SanetError, match=f"{operator}', which no network needs"):
        Predictor(evil, "cpu")


def test_traces_keep_no_example(model):
    assert trace(prepare(model)).example_inputs is None
