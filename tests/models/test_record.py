"""What loading a saved model believes of its files: nothing."""

import json
import random
import struct

import pytest
import timm
import torch
from packaging.version import Version
from safetensors.torch import load_file, save_file

import sanet
from sanet.models import networks
from sanet.models.networks import NETWORKS, create_model, load_model, resolved_options
from sanet.models.store import escaped
from sanet.record import FORMER_DEFAULTS
from sanet.structures import SanetError, UsageError

IMAGES = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("sanet", "test_resnet", num_classes=3, output_stride=32, pooling="max", shorter_side=64).eval()
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture
def saved(original, tmp_path):
    """A copy that a test may damage."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((original[1] / name).read_bytes())
    return tmp_path


def changed(folder, **values):
    """Change keys of a config.json; None takes one out."""
    content = json.loads((folder / "config.json").read_text()) | values
    text = json.dumps({name: value for name, value in content.items() if value is not ...})
    (folder / "config.json").write_text(text)


def logits(model):
    with torch.no_grad():
        return model(IMAGES).logits


def test_a_config_of_the_first_format_means_what_it_meant(original, saved):
    """Letter for letter as version 0.1 wrote it: given options alone, no format, no sum."""
    labels = json.loads((saved / "config.json").read_text())["labels"]
    former = {
        "backbone": "test_resnet",
        "labels": labels,
        "network": "sanet",
        "options": {"pooling": "max"},
        "output_stride": 32,
        "pretrained_backbone": True,
    }
    (saved / "config.json").write_text(json.dumps(former, sort_keys=True, indent=2))
    model = load_model(saved)
    assert torch.equal(logits(model), logits(original[0]))
    assert model.options == original[0].options | {"heads": (1, 2, 3, 4), "branches": ("dense", "category")}
    assert model.shorter_side is None


def test_a_default_that_changes_changes_no_saved_model(original, saved, monkeypatch):
    class Later(networks.SANetHead):
        def __init__(self, levels, num_classes, downsample=2, pooling="average", **options):
            super().__init__(levels, num_classes, downsample=downsample, pooling=pooling)

    former = {name: json.loads((saved / "config.json").read_text())[name] for name in ("labels", "network", "backbone")}
    before = {"downsample": 8, "pooling": "average"}
    monkeypatch.setitem(NETWORKS, "sanet", Later)
    monkeypatch.setitem(FORMER_DEFAULTS, "sanet", before)
    (saved / "config.json").write_text(json.dumps(former | {"output_stride": 32, "options": None}))
    assert load_model(saved).options == before
    assert create_model("sanet", "test_resnet", num_classes=3, output_stride=32).options["downsample"] == 2


# Networks that came with format 2 have all their options in their files.
# What no config.json without "format" can name.
LATER = {"sanet_variant", "apcnet", "refinenet", "dfn", "deeplabv2", "dilatednet", "parsenet"}


@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - LATER))
def test_the_frozen_defaults_are_all_there(network):
    assert resolved_options(network, NETWORKS[network], {}) == FORMER_DEFAULTS.get(network, {})


def test_what_is_saved_is_what_the_model_is_now(original, saved, tmp_path):
    model = load_model(saved)
    model.shorter_side = 96
    model.save_pretrained(tmp_path / "again")
    content = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (content["format"], content["shorter_side"]) == (2, 96)
    assert content["options"] == json.loads(json.dumps(original[0].options))
    assert load_model(tmp_path / "again").shorter_side == 96
    model.shorter_side = "96"
    with pytest.raises(UsageError, match="shorter_side"):
        model.save_pretrained(tmp_path / "wrong")


NESTED = "[" * 100_000 + "]" * 100_000
TEXTS = {
    "nested": '{"format": ' + NESTED + "}",
    "nested objects": '{"a":' * 100_000,
    "digits": '{"format": ' + "9" * 5000 + "}",
    "nan": '{"format": NaN}',
    "infinity": '{"format": -Infinity}',
    "text": '"format"',
    "null": "null",
    "large": '{"format": "' + "x" * 2**22 + '"}',
    "latin": b'{"format": "\xe9"}',
    "mark": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_no_config_is_refused(saved, name):
    content = TEXTS[name]
    (saved / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SanetError, match=r"config\.json"):
        load_model(saved)


LABELS = {"names": ["a", "b", "c"], "colors": [[1, 2, 3]] * 3, "ignore_index": 255}


@pytest.mark.parametrize(
    "values",
    [
        {"labels": LABELS | {"colors": [[1, 2], [1, 2, 3], [1, 2, 3]]}},
        {"labels": LABELS | {"colors": [[1, 2, 3.5]] * 3}},
        {"labels": LABELS | {"colors": 3}},
        {"labels": LABELS | {"colors": {"a": 1}}},
        {"labels": LABELS | {"names": "abc"}},
        {"labels": LABELS | {"names": {"a": 0, "b": 1, "c": 2}}},
        {"labels": LABELS | {"names": ["a", "b", 3]}},
        {"labels": LABELS | {"names": ["a", "b", "x" * 300]}},
        {"labels": LABELS | {"names": ["a", "b", "\x1b[2J"]}},
        {"labels": LABELS | {"names": ["a", "b", "\ud800"]}},
        {"labels": LABELS | {"names": [str(number) for number in range(200_000)], "colors": []}},
        {"labels": LABELS | {"ignore_index": 1e300}},
        {"labels": LABELS | {"ignore_index": 2**31}},
        {"labels": LABELS | {"background": True}},
        {"labels": LABELS | {"background_ignored": 1}},
        {"labels": LABELS | {"\x1b[2J": 1}},
        {"labels": []},
        {"network": None},
        {"network": "x" * 1000},
        {"backbone": "hf-hub:someone/net"},
        {"backbone": ["test_resnet"]},
        {"output_stride": True},
        {"output_stride": 10**9},
        {"shorter_side": 31},
        {"shorter_side": 10**9},
        {"shorter_side": 64.0},
        {"weights_sha256": ...},
        {"weights_sha256": "0" * 64},
        {"weights_sha256": None},
        {"options": None},
        {"options": {"groups": 10**9}},
        {"options": {"category_hidden": 10**9}},
        {"options": {"downsample": 4096}},
        {"options": {"heads": [1] * 10**5}},
        {"options": {"heads": [[1]]}},
        {"options": {"heads": {"1": 1}}},
        {"options": {"readout": ["mask"]}},
        {"options": {"pooling": None}},
        {"options": {"\x1b[2J": 1}},
        {"format": 1},
        {"format": 3},
        {"format": True},
        {"format": "2"},
        {"format": 2.0},
        {"\x1b[2J": 1},
    ],
    ids=lambda values: ascii(values)[:40],
)
def test_a_value_of_another_kind_is_refused(saved, values):
    changed(saved, **values)
    with pytest.raises(SanetError) as refused:
        load_model(saved)
    assert str(saved) in str(refused.value)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize(
    "backbone",
    [
        "tf_efficientnet_l2",
        pytest.param(
            "regnety_2560",
            marks=pytest.mark.skipif(Version(timm.__version__) < Version("1.0.30"), reason="timm computes for it"),
        ),
    ],
)
def test_a_giant_takes_no_memory(saved, backbone, monkeypatch):
    """Networks of 0.5 and 1.3 billion parameters."""
    made = []
    empty = torch.empty
    with torch.device("meta"):
        empty(0)  # which functions make tensors is looked up once
    monkeypatch.setattr(torch, "empty", lambda *sizes, **kind: made.append(empty(*sizes, **kind)) or made[-1])
    changed(saved, backbone=backbone)
    with pytest.raises(SanetError, match="not the weights of this network"):
        load_model(saved)
    assert made
    assert all(tensor.device.type == "meta" for tensor in made)


def test_weights_that_are_damaged_are_refused(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    draw = random.Random(0)
    for place in [draw.randrange(len(whole)) for _ in range(40)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(SanetError, match=r"model\.safetensors"):
            load_model(saved)


def test_a_header_that_claims_gigabytes_is_refused(saved):
    path = saved / "model.safetensors"
    for header, length in ((b"{}", 2**40), (b" " * 2**20, 2**31)):
        path.write_bytes(struct.pack("<Q", length) + header)
        with pytest.raises(SanetError, match="no safetensors file"):
            load_model(saved)
    size = 2**34
    header = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)  # takes no room on the disk
    with pytest.raises(SanetError, match="not the weights of this network"):
        load_model(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, value):
    tensors = load_file(saved / "model.safetensors")
    tensors["head.mask.bias"][1] = value
    save_file(tensors, saved / "model.safetensors")
    former = json.loads((saved / "config.json").read_text())
    former = {name: former[name] for name in ("labels", "network", "backbone", "options", "output_stride")}
    (saved / "config.json").write_text(json.dumps(former))
    with pytest.raises(SanetError, match=r"head\.mask\.bias"):
        load_model(saved)


@pytest.mark.parametrize(
    ("dtype", "loads"), [(torch.float16, True), (torch.float64, True), (torch.int64, False), (torch.uint8, False)]
)
def test_numbers_of_another_kind_are_refused(saved, dtype, loads):
    tensors = load_file(saved / "model.safetensors")
    tensors["head.mask.bias"] = torch.ones(3).to(dtype)
    save_file(tensors, saved / "model.safetensors")
    former = json.loads((saved / "config.json").read_text())
    former = {name: former[name] for name in ("labels", "network", "backbone", "options", "output_stride")}
    (saved / "config.json").write_text(json.dumps(former))
    if loads:
        assert load_model(saved).head.mask.bias.dtype == torch.float32
    else:
        with pytest.raises(SanetError, match=r"head\.mask\.bias is torch"):
            load_model(saved)


def damaged(text, draw):
    """One of the ways in which a JSON text goes wrong."""
    content = json.loads(text)
    kind = draw.randrange(5)
    if kind == 0:
        place = draw.randrange(len(text))
        raw = bytearray(text.encode())
        raw[place] ^= 1 << draw.randrange(8)
        return bytes(raw)
    if kind == 1:
        return text[: draw.randrange(len(text))].encode()
    if kind == 2:
        first, last = sorted(draw.randrange(len(text)) for _ in range(2))
        return (text[:first] + text[last:]).encode()
    inner = content
    name = draw.choice(sorted(inner))
    while isinstance(inner[name], (dict, list)) and inner[name] and draw.random() < 0.7:
        inner = inner[name]
        name = draw.choice(sorted(inner)) if isinstance(inner, dict) else draw.randrange(len(inner))
    values = (None, True, -1, 0, 2**40, 1.5, "", "x", "\x00", [], {}, [[]], {"a": []}, [1, 2, 3], ["a"] * 3, 10**300)
    inner[name] = draw.choice(values) if kind == 3 else [inner[name]]
    return json.dumps(content).encode()


def test_a_config_that_is_damaged_is_refused_or_read(saved):
    text = (saved / "config.json").read_text()
    draw = random.Random(0)
    refusals = []
    for _ in range(300):
        (saved / "config.json").write_bytes(damaged(text, draw))
        try:
            load_model(saved)
        except SanetError as error:
            refusals.append(str(error))
    assert len(refusals) > 150
    assert all(str(saved) in refusal for refusal in refusals)


@pytest.mark.parametrize("name", ["runs/mistyped", "runs/mistyped/", "mistyped", "x" * 5000, "a\0b", "runs/none/model"])
def test_a_name_that_is_no_folder_never_reaches_the_hub(saved, name, monkeypatch):
    monkeypatch.chdir(saved)
    monkeypatch.setattr("sanet.models.store.hf_hub_download", None)
    (saved / "runs" / "leaf" / "model").mkdir(parents=True)
    (saved / "runs" / "notes").mkdir()
    with pytest.raises(SanetError, match="no folder") as refused:
        load_model(name)
    assert ("runs: leaf" in str(refused.value)) == (name in ("runs/mistyped", "runs/mistyped/"))
    assert "notes" not in str(refused.value)


def test_a_file_is_said_to_be_no_folder_of_a_model(tmp_path):
    exported = tmp_path / "street.onnx"
    exported.write_bytes(b"")
    with pytest.raises(SanetError, match="is a file"):
        load_model(exported)


def test_the_hub_is_asked_by_its_own_name(original, saved, monkeypatch):
    asked = []

    def download(repository, file, **options):
        asked.append((repository, options))
        return str(saved / file)

    monkeypatch.setattr("sanet.models.store.hf_hub_download", download)
    assert torch.equal(logits(load_model("hf:someone/street")), logits(original[0]))
    sanet.models.networks.SegmentationModel.from_pretrained("someone/street", revision="v1")
    assert asked == [("someone/street", {})] * 2 + [("someone/street", {"revision": "v1"})] * 2


@pytest.mark.parametrize("name", ["hf:", "hf:street", "hf:a/b/c", "hf:../..", "hf:someone/street"])
def test_a_model_that_the_hub_does_not_have_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SanetError, match=name):
        load_model(name)


def test_names_are_escaped_in_markdown():
    assert escaped("a | b") == r"a \| b"
    assert escaped("<script>") == "&lt;script&gt;"
    assert escaped("`x` *y* [z](w) \\") == r"\`x\` \*y\* \[z\](w) \\"
    assert escaped("Straße 7") == "Straße 7"
