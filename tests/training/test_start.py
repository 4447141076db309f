"""Starting from other weights: all of them, or those that fit, and never by running code."""

import dataclasses

import pytest
import torch

import sanet
from brightness import small_run
from sanet.config import CHECKPOINTS
from sanet.structures import SanetError, UsageError
from sanet.training.checkpoints import CheckpointFolder
from sanet.training.fit import train
from sanet.training.start import init_from


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run."""
    from brightness import write_pictures

    folder = tmp_path_factory.mktemp("source")
    write_pictures(folder / "data")
    return train(dataclasses.replace(small_run(folder / "data", folder / "run"), epochs=1)).directory


def network(name="sanet", classes=2, backbone="test_resnet", stride=8):
    return sanet.create_model(name, backbone, num_classes=classes, output_stride=stride)


def test_run_model_and_checkpoint_give_the_same_weights(source):
    expected = sanet.load_model(source / "model").state_dict()
    places = [source, source / "model", CheckpointFolder(source / CHECKPOINTS).best()]
    for place in places:
        model = network()
        init_from(model, str(place), strict=True)
        for name, value in model.state_dict().items():
            assert torch.equal(value, expected[name]), (place, name)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"classes": 5}, r"main\.3\.weight is \(2, 8, 3, 3\), the network's \(5, 8, 3, 3\); .*and \d+ more"),
        ({"backbone": "test_efficientnet", "stride": 16}, r"backbone\..* is missing; .*and \d+ more"),
        ({"name": "fcn"}, r"is not a tensor of the network"),
    ],
)
def test_other_weights_are_refused_with_the_tensors_that_differ(source, changes, named):
    model = network(**changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SanetError, match=named) as refused:
        init_from(model, str(source), strict=True)
    assert "--model.strict false" in str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_fits_is_kept_and_what_does_not_is_named(source, capsys):
    model = network(classes=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = sanet.load_model(source / "model").state_dict()
    init_from(model, str(source), strict=False)
    said = capsys.readouterr().err
    dropped = [name for name in given if given[name].shape != before[name].shape]
    assert dropped
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in dropped else given[name]), name
        assert (f" {name} is " in said) == (name in dropped)


def test_nothing_that_fits_is_no_start(source):
    other = torch.nn.Linear(2, 2)
    with pytest.raises(SanetError, match="none of the weights"):
        init_from(other, str(source), strict=False)


def test_a_run_starts_from_another(source, root, config, tmp_path):
    model = dataclasses.replace(config.model, init_from=str(source))
    # So small a rate that what it started from still shows.
    optimizer = sanet.OptimizerConfig(learning_rate=1e-9)
    run = train(dataclasses.replace(config, model=model, optimizer=optimizer, epochs=1))
    expected = sanet.load_model(source / "model").state_dict()
    for name, value in sanet.load_model(run.directory / "model").named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    train(dataclasses.replace(config, model=model, optimizer=optimizer, epochs=2), resume=True)


def test_a_checkpoint_of_another_network_is_not_gone_on_with(source, config):
    train(dataclasses.replace(config, epochs=1))
    folder = CheckpointFolder(sanet.config.Path(config.output) / CHECKPOINTS)
    path = folder.newest()
    content = torch.load(path, weights_only=True)
    content["state_dict"] = {
        name: value[:1] if name == "model.head.mask.weight" else value
        for name, value in content["state_dict"].items()
        if name != "model.head.mask.bias"
    }
    torch.save(content, path)
    folder.add(content["global_step"], None)
    with pytest.raises(SanetError, match=r"another network: head\.mask\.weight is .*; head\.mask\.bias is missing"):
        train(config, resume=True)


def test_weights_that_may_differ_need_weights_to_start_from():
    with pytest.raises(UsageError, match="strict"):
        sanet.ModelConfig(strict=False)
