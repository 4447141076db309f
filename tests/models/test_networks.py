"""One contract for every network, over the whole of ``NETWORKS``."""

import copy
import shutil
from typing import get_args

import pytest
import torch
from awake import CASES, CLASSES, build, close, evaluated, pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from brightness import loss_of
from sanet.models.networks import create_model, load_model
from sanet.models.sanet import Readout
from sanet.structures import LabelSet, UsageError

# Each network over one of the two backbones; over the other where it may take longer.
each_case = pytest.mark.parametrize(
    ("network", "backbone", "stride"),
    [pytest.param(*case, marks=[] if index % 4 in (0, 3) else pytest.mark.slow) for index, case in enumerate(CASES)],
)
# As graphs, which takes seconds for each.
each_network = pytest.mark.parametrize(
    ("network", "stride"),
    [
        pytest.param(network, stride, marks=[] if network == "sanet" else pytest.mark.slow)
        for network, _, stride in CASES[1::2]
    ],
)
LITE0 = "tf_efficientnet_lite0"


@each_case
def test_the_loss_reaches_every_parameter(network, backbone, stride):
    """In one of a few networks: where a ReLU has few inputs, all of them may be below zero."""
    unreached = None
    for seed in range(4):
        model = build(network, backbone, stride, seed=seed)
        images, masks = pictures(height=96, width=112)
        output = model(images)._replace(logits=None)  # the loss supervises the parts, not what prediction uses
        loss_of(output, masks)["loss"].backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
        silent = {name for name, gradient in gradients.items() if not gradient.any()}
        unreached = silent if unreached is None else unreached & silent
        if not unreached:
            break
    assert not unreached


@each_case
@settings(max_examples=12)
@given(count=st.integers(1, 2), height=st.integers(32, 150), width=st.integers(32, 150))
def test_any_size_gives_logits_of_that_size(network, backbone, stride, count, height, width):
    model = evaluated(network, backbone, stride)
    with torch.no_grad():
        output = model(torch.rand(count, 3, height, width))
    assert output.logits.shape == (count, CLASSES, height, width)
    assert output.logits.isfinite().all()
    assert output.mask.shape[:2] == (count, CLASSES)
    stages = 3 if network == "dfn" else 1
    assert output.dense is None or output.dense.shape[:2] == (count, stages * CLASSES)
    assert (output.border is None) == (network != "dfn")
    assert output.category is None or output.category.shape == (count, CLASSES)


@each_case
def test_pictures_of_a_batch_do_not_mix(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    images, _ = pictures(3, 50, 45)
    with torch.no_grad():
        together = model(images).logits
        alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@each_case
@pytest.mark.parametrize("side", [32, 70])
def test_a_batch_of_one_trains(network, backbone, stride, side):
    model = build(network, backbone, stride).train()
    side = max(side, stride + 1)  # two cells: timm's norms do not train on one value per channel
    images, masks = pictures(1, side, side)
    loss = loss_of(model(images), masks)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.slow
@each_case
def test_ten_steps_on_one_batch_lower_the_loss(network, backbone, stride):
    model = build(network, backbone, stride)
    masks = torch.arange(CLASSES).repeat(2)[:8].view(2, 2, 2).repeat_interleave(32, 1).repeat_interleave(32, 2)
    colors = torch.rand(CLASSES, 3, generator=torch.Generator().manual_seed(0))
    images = colors[masks].permute(0, 3, 1, 2)  # blocks of one colour each
    rate = 0.1 if network == "refinenet" else 0.05  # it has no norm, and starts with small weights
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    losses = []
    for _ in range(11):
        loss = loss_of(model(images), masks)["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0], losses


@each_case
def test_a_saved_model_comes_back_equal(network, backbone, stride, tmp_path):
    model = evaluated(network, backbone, stride)
    model.save_pretrained(tmp_path)
    images, _ = pictures()
    for loaded in (load_model(tmp_path), load_model(str(tmp_path)), type(model).from_pretrained(tmp_path)):
        assert not loaded.training
        assert loaded.labels == model.labels
        assert isinstance(loaded.labels, LabelSet)
        with torch.no_grad():
            for one, other in zip(loaded(images), model(images), strict=True):
                assert (one is None and other is None) or torch.equal(one, other)


@each_case
def test_evaluation_is_deterministic(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    images, _ = pictures()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(images).logits, model(images).logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@each_case
def test_bytes_and_shares_are_the_same_picture(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    stored = (pictures()[0] * 255).round().to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(model(stored).logits, model(stored.float() / 255).logits)


@pytest.mark.slow
@each_case
def test_bfloat16_autocast_stays_close(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    images, masks = pictures()
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images)
    assert rounded.logits.dtype == torch.bfloat16
    close(rounded, exact, tolerance=0.2)
    assert (rounded.logits.float() - exact.logits).abs().mean() < 0.02 * exact.logits.std()
    found, expected = loss_of(rounded, masks)["loss"], loss_of(exact, masks)["loss"]
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


@pytest.mark.slow
@each_case
def test_bfloat16_autocast_trains(network, backbone, stride):
    model = build(network, backbone, stride)
    images, masks = pictures()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model(images), masks)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@each_case
def test_channels_last_changes_nothing(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    images, _ = pictures()
    with torch.no_grad():
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        close(last(images.to(memory_format=torch.channels_last)), model(images), tolerance=1e-4)


@each_network
def test_every_head_is_one_graph(network, stride):
    model = evaluated(network, "test_efficientnet", stride)
    torch.compiler.reset()
    with torch.no_grad():
        maps = model.backbone(pictures(1, 32, 32)[0])
        captured = torch.compile(model.head, fullgraph=True, backend="eager")
        close(captured([*map(torch.clone, maps)]), model.head(maps), tolerance=1e-4)


NO_COMPILER = not any(map(shutil.which, ("c++", "g++", "clang++")))


@pytest.mark.parametrize(
    "backend",
    ["eager", pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.skipif(NO_COMPILER, reason="no C++")])],
)
def test_compiled_agrees_with_eager(backend):
    """A network is one graph from image to logits, from which a compiler, which takes a while, makes the same."""
    model = evaluated("sanet", "test_efficientnet", 16)
    images, _ = pictures(1, 32, 32)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        close(compiled(images), model(images), tolerance=1e-4)


@pytest.mark.slow
@each_network
def test_exported_agrees_with_eager_at_other_sizes(network, stride):
    model = evaluated(network, "test_resnet", stride)
    side = torch.export.Dim
    sizes = {0: side("count", min=1, max=8), 2: side("rows", min=32, max=512), 3: side("columns", min=32, max=512)}
    example = torch.rand(2, 3, 181, 203)
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):
        exported = torch.export.export(
            model, (example,), dynamic_shapes=(sizes,), prefer_deferred_runtime_asserts_over_guards=True
        ).module()
    for shape in ((1, 3, 40, 32), (3, 3, 64, 128), (1, 3, 97, 333)):
        images = torch.rand(shape)
        with torch.no_grad():
            close(exported(images), model(images), tolerance=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@each_network
def test_traced_agrees_with_eager_at_other_sizes(network, stride):
    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = evaluated(network, "test_resnet", stride)

        def forward(self, images):
            return self.network(images).logits

    model = Logits()
    with torch.no_grad():
        traced = torch.jit.trace(model, (torch.rand(2, 3, 181, 203),), check_trace=False)
        for shape in ((1, 3, 32, 32), (3, 3, 64, 128), (1, 3, 97, 333)):
            images = torch.rand(shape)
            torch.testing.assert_close(traced(images), model(images), rtol=1e-4, atol=1e-5)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"network": "sanett"}, ["sanett", "did you mean 'sanet'", "fcn"]),
        ({"backbone": "resnet1o1"}, ["resnet1o1", "resnet101"]),
        ({"backbone": "zzzz"}, ["zzzz", "resnet50", LITE0]),
        ({"backbone": "resnet18.nonsense"}, ["resnet18.nonsense"]),
        ({"readout": "masc"}, ["masc", *get_args(Readout)]),
        ({"pooling": "median"}, ["median", "average", "max"]),
        ({"poolin": "max"}, ["poolin", "reduction", "groups", "downsample", "pooling", "category_hidden", "readout"]),
        ({"network": "fcn", "pooling": "max"}, ["fcn", "pooling"]),
        ({"network": "smp_deeplab"}, ["smp_deeplab", "did you mean 'smp_deeplabv3'"]),
        ({"network": "smp_upernet", "decoder_channel": 9}, ["decoder_channel", "decoder_channels"]),
        ({"network": "smp_fpn", "output_stride": 16}, ["output stride 32"]),
        ({"network": "smp_deeplabv3plus", "output_stride": 32}, ["8 or 16", "32"]),
        ({"heads": ()}, ["heads", "1, 2, 3, 4", "fcn"]),
        ({"heads": (1, 5)}, ["heads", "5"]),
        ({"heads": (1, 1)}, ["heads", "1"]),
        ({"branches": ("category",), "readout": "sum"}, ["readout", "dense"]),
        ({"branches": ("cat",)}, ["cat", "category", "dense"]),
        ({"reduction": 0}, ["reduction", "0"]),
        ({"groups": 0}, ["groups", "0"]),
        ({"downsample": 0}, ["downsample", "0"]),
        ({"category_hidden": 0}, ["category_hidden", "0"]),
        ({"backbone": "test_efficientnet", "output_stride": 12}, ["12", "8, 16"]),
        ({"backbone": "test_resnet", "output_stride": 12}, ["12", "8, 16"]),
        ({"backbone": "test_efficientnet", "output_stride": 64}, ["64", "8, 16"]),
        ({"backbone": "vgg11"}, ["vgg11"]),
        ({"backbone": "test_vit"}, ["test_vit"]),
        ({"num_classes": None}, ["num_classes", "labels"]),
        ({"labels": LabelSet(("a", "b"))}, ["num_classes", "labels"]),
        ({"num_classes": 0}, ["class"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_the_choices(arguments, words):
    given_arguments = {"network": "sanet", "backbone": "test_efficientnet", "num_classes": 3, **arguments}
    with pytest.raises(ValueError, match=words[0]) as caught:
        create_model(**given_arguments)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_too_small_a_picture_is_refused(size):
    with pytest.raises(ValueError, match="32") as caught:
        evaluated("sanet", "test_efficientnet", 16)(torch.rand(1, 3, *size))
    assert str(size) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"downsampel": 2}, "did you mean 'downsample'"),
        ({"downsample": 0}, "downsample 0: a whole number, 1 or more"),
        ({"downsample": 2.5}, "downsample 2.5: a whole number, 1 or more"),
        ({"groups": "two"}, "groups 'two': a whole number, 1 or more"),
        ({"category_hidden": True}, "category_hidden True: a whole number, 1 or more"),
        ({"heads": 3}, "heads 3: a list"),
        ({"pooling": "avg"}, "average"),
    ],
)
def test_an_option_that_cannot_be_is_named(options, named):
    with pytest.raises(UsageError) as refused:
        create_model("sanet", "test_resnet", num_classes=3, **options)
    assert named in str(refused.value)


def test_options_of_a_rival_may_be_fractions_and_0():
    model = create_model("smp_pspnet", "test_resnet", num_classes=3, psp_dropout=0)
    assert model(torch.rand(1, 3, 40, 40)).logits.shape == (1, 3, 40, 40)
