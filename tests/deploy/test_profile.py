"""Costs of networks against counts by hand, loops over layers, and a walk over what autograd keeps."""

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sanet.cli.main import command_of, main
from sanet.deploy.config import ProfileConfig, Published
from sanet.deploy.profile import Cost, Machine, Profile, Timing, count_activations, count_macs, profile
from sanet.deploy.tables import difference, records, render, write
from sanet.models.networks import create_model
from sanet.structures import SanetError, UsageError

RECIPE = Path(__file__).parents[2] / "recipes" / "table6.yaml"
TINY = {"backbones": ("test_resnet",), "sizes": ((64, 80),), "num_classes": 5}
on_each_device = pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])


def empty_model(network, backbone="test_resnet", classes=5):
    with torch.device("meta"):
        return create_model(network, backbone, num_classes=classes, output_stride=8)


# -- counting ---------------------------------------------------------------------------------------------------------


def multiplications_of_layers(model, images):
    """Of every convolution and linear layer of one pass, from the shapes inside; and with norms and ReLUs."""
    total = rest = 0

    def add(layer, given, maps):
        nonlocal total, rest
        if isinstance(layer, nn.Conv2d):
            for _ in range(maps.shape[0] * maps.shape[1]):
                total += maps.shape[2] * maps.shape[3] * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += maps.numel() * layer.in_features
        elif isinstance(layer, nn.BatchNorm2d):
            rest += 2 * maps.numel()
        elif isinstance(layer, nn.ReLU):
            rest += maps.numel()

    handles = [layer.register_forward_hook(add) for layer in model.modules()]
    with torch.no_grad():
        model.eval()(images)
    for handle in handles:
        handle.remove()
    return total, total + rest


def test_macs_of_a_convolution_are_those_of_its_loops():
    total, groups, height, width = 0, 2, 9, 12
    for _ in range(8):  # maps that come out
        for top in range(-1, height + 1 - 2, 2):
            for left in range(-1, width + 1 - 2, 2):
                for _ in range(4 // groups):  # maps that each of them sees
                    total += sum(1 for row in range(top, top + 3) for column in range(left, left + 3))
    layer = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups)
    assert count_macs(layer, torch.zeros(1, 4, height, width)) == total
    assert count_macs(layer, torch.zeros(3, 4, height, width)) == 3 * total
    assert count_macs(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.zeros(2, 3, 2, 2)) == 2 * 12 * 5


@pytest.mark.parametrize("network", ["fcn", "fcn_se", "sanet", "smp_deeplabv3plus"])
def test_macs_and_parameters_are_the_sums_over_layers(network):
    cost = profile(ProfileConfig(networks=(network,), **TINY)).costs[0]
    model = empty_model(network)
    expected, _ = multiplications_of_layers(model, torch.empty(1, 3, 64, 80, device="meta"))
    assert cost.macs == expected
    assert cost.parameters == sum(
        tensor.numel() for tensor in model.state_dict(keep_vars=True).values() if tensor.requires_grad
    )


def test_activations_of_known_layers():
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),  # keeps its input: 3 maps
        nn.ReLU(),  # keeps its output: 4 maps,
        nn.Conv2d(4, 2, 3, padding=1),  # which is also what this one keeps
        nn.Flatten(),
        nn.Sigmoid(),  # keeps its output: 2 maps
    ).to("meta")
    for batch in (1, 2):
        images = torch.empty(batch, 3, 10, 11, device="meta")
        assert count_activations(layers, images) == batch * (3 + 4 + 2) * 10 * 11 * 4


def kept_by_the_graph(outputs):
    """Bytes of every tensor that a node of the graph of real outputs holds, by a walk over all nodes."""
    waiting, seen, kept = [output.grad_fn for output in outputs], set(), {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        for name in dir(node):
            if name.startswith("_saved_"):
                value = getattr(node, name)
                for tensor in value if isinstance(value, (list, tuple)) else [value]:
                    if isinstance(tensor, torch.Tensor) and tensor.numel():
                        storage = tensor.untyped_storage()
                        kept[storage.data_ptr()] = storage.nbytes()
    return kept


@pytest.mark.parametrize("network", ["fcn", "sanet", "smp_deeplabv3plus"])
def test_activations_are_what_the_graph_of_a_real_pass_holds(network):
    model = create_model(network, "test_resnet", num_classes=5, output_stride=8).train()
    outputs = model(torch.rand(2, 3, 64, 80))
    kept = kept_by_the_graph(output for output in outputs if output is not None)
    for tensor in (*model.parameters(), *model.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    cost = profile(ProfileConfig(networks=(network,), batch=2, **TINY)).costs[0]
    assert cost.activations == sum(kept.values())


@pytest.mark.parametrize("network", ["fcn", "sanet"])
def test_a_batch_of_two_keeps_twice_as_much_but_for_the_statistics_of_the_norms(network):
    one, two = (profile(ProfileConfig(networks=(network,), batch=batch, **TINY)).costs[0] for batch in (1, 2))
    norms = [layer for layer in empty_model(network).modules() if isinstance(layer, nn.BatchNorm2d)]
    statistics = sum(2 * 4 * norm.num_features for norm in norms)  # a mean and a deviation for each channel
    assert 2 * (one.activations - statistics) == two.activations - statistics
    assert (one.macs, one.parameters) == (two.macs, two.parameters)


def test_counting_allocates_nothing():
    cost = profile(ProfileConfig(networks=("sanet",), batch=4096, **{**TINY, "sizes": ((8192, 8192),)})).costs[0]
    assert cost.activations > 2**45


def test_every_combination_has_its_row_in_order():
    config = ProfileConfig(("fcn_se", "fcn"), ("test_resnet", "test_efficientnet"), ((32, 64), (64, 32)), 16, 3)
    rows = [(cost.network, cost.backbone, cost.height, cost.width) for cost in profile(config).costs]
    assert rows == [
        (network, backbone, *size)
        for network in config.networks
        for backbone in config.backbones
        for size in config.sizes
    ]


def test_a_network_that_cannot_be_had_does_not_take_the_others_with_it():
    found = profile(ProfileConfig(networks=("smp_fpn", "fcn"), **TINY))
    assert "needs output stride 32" in found.costs[0].problem
    assert (found.costs[0].macs, found.costs[1].problem) == (None, "")
    assert "- smp_fpn: network 'smp_fpn': needs output stride 32" in render(found)
    assert records(found)[0]["problem"] == found.costs[0].problem
    with pytest.raises(UsageError, match="needs output stride 32"):
        profile(ProfileConfig(networks=("smp_fpn",), **TINY))


# -- table 6 ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table_6():
    return profile(command_of(["profile", "--config", str(RECIPE)]).config)


@pytest.mark.slow
def test_the_recipe_builds_and_every_difference_has_its_reason(table_6):
    assert [cost.problem for cost in table_6.costs] == [""] * 3
    for cost in table_6.costs:
        published = table_6.published(cost)
        far = [difference(cost.parameters / 1e6, published.parameters), difference(cost.macs / 1e9, published.macs)]
        assert max(map(abs, far)) <= 1 or published.note
        assert cost.network != "sanet" or max(map(abs, far)) < 0.5


def figures(model, side):
    """Millions of parameters, and 10^9 MACs without and with norms and ReLUs."""
    images = torch.empty(1, 3, side, side, device="meta")
    counts = multiplications_of_layers(model, images)
    return [sum(tensor.numel() for tensor in model.parameters()) / 1e6, *(number / 1e9 for number in counts)]


class PlainDeepLab(nn.Module):
    """Decoder of DeepLabV3+ without separable convolutions, over a backbone of 2048 channels."""

    def __init__(self, backbone, classes=21):
        super().__init__()
        self.backbone = backbone
        self.pyramid = nn.ModuleList([self.layer(2048, 256), *(self.layer(2048, 256, 3) for _ in range(3))])
        self.pooled, self.project, self.low = self.layer(2048, 256), self.layer(1280, 256), self.layer(256, 48)
        self.decoder = nn.Sequential(self.layer(304, 256, 3), self.layer(256, 256, 3), nn.Conv2d(256, classes, 1))

    def layer(self, channels, out, side=1):
        convolution = nn.Conv2d(channels, out, side, padding=side // 2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())

    def forward(self, images):
        low, *_, last = self.backbone(images)[-4:]
        pooled = self.pooled(last.mean((2, 3), keepdim=True)).expand(-1, -1, *last.shape[2:])
        maps = self.project(torch.cat([*(layer(last) for layer in self.pyramid), pooled], 1))
        maps = F.interpolate(maps, size=low.shape[2:], mode="bilinear", align_corners=False)
        return self.decoder(torch.cat([maps, self.low(low)], 1))


@pytest.mark.slow
def test_what_the_notes_of_the_recipe_say_is_so(table_6):
    notes = {name: entry.note for name, entry in table_6.config.published.items()}
    fcn, sanet = (empty_model(network, "resnet101s", 21) for network in ("fcn", "sanet"))
    with torch.device("meta"):
        deeplab = PlainDeepLab(fcn.backbone)
    found = figures(fcn, 480)
    assert found == pytest.approx([42.67, 162.16, 162.81], abs=0.01)
    assert "162.2 G, or 162.8 G if norms" in notes["fcn"]
    assert found[2] == pytest.approx(162.7, rel=0.001)
    found = figures(deeplab, 480)
    assert found == pytest.approx([59.47, 234.87, 235.56], abs=0.01)
    assert "59.5 M and, with norms and activations, 235.6 G" in notes["smp_deeplabv3plus"]
    assert figures(sanet, 480)[1:] == pytest.approx([186.8, 187.4], abs=0.05)
    assert "186.8 G (187.4 G with" in notes["sanet"]
    sanet.head.attention[3].downsample, sanet.head.attention[3].pool = 1, nn.Identity()
    assert figures(sanet, 480)[1:] == pytest.approx([203.8, 204.4], abs=0.05)
    assert "203.8 G (204.4 G)" in notes["sanet"]


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@on_each_device
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_every_network_is_timed(device, precision):
    settings = {"time": True, "repeats": 4, "threads": 1, "device": device, "precision": precision}
    before = torch.get_num_threads()
    found = profile(ProfileConfig(networks=("fcn", "smp_fpn", "sanet"), batch=2, **TINY, **settings), progress=False)
    assert [cost.timing is None for cost in found.costs] == [False, True, False]
    for timing in (found.costs[0].timing, found.costs[2].timing):
        assert 0 < timing.low <= timing.median <= timing.high
        assert timing.repeats == 4
    assert found.machine.name
    assert (found.machine.threads, found.machine.torch) == (1, torch.__version__)
    assert torch.get_num_threads() == before
    assert f"{precision}, {found.machine.name}, CPU threads: 1" in " ".join(render(found).split())


def test_threads_are_those_that_were_asked_for():
    found = profile(ProfileConfig(networks=("fcn",), time=True, repeats=1, threads=2, device="cpu", **TINY), False)
    assert found.machine.threads == 2
    timing = found.costs[0].timing
    assert timing.low == timing.median == timing.high


def test_a_size_that_does_not_fit_into_memory_is_counted_and_says_so():
    sizes = ((10**7, 10**7), (64, 80))
    config = ProfileConfig(("fcn",), time=True, repeats=2, device="cpu", **{**TINY, "sizes": sizes})
    large, small = profile(config, progress=False).costs
    assert large.macs > 10**9 * small.macs
    assert (large.timing, small.problem) == (None, "")
    assert large.problem.startswith("not timed: ")
    assert "alloc" in large.problem
    assert small.timing.repeats == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "gpu"])
def test_a_missing_device_is_named_before_anything_is_counted(device):
    with pytest.raises(UsageError, match=rf"'{device}' cannot be used"):
        profile(ProfileConfig(time=True, device=device, networks=("fcn",), backbones=("no such backbone",)))
    assert profile(ProfileConfig(device=device, networks=("fcn",), **TINY)).machine is None


# -- tables and files -------------------------------------------------------------------------------------------------


def made_up():
    """A profile with everything that a table can have, in figures that are easy to follow."""
    config = ProfileConfig(
        ("sanet", "fcn"),
        ("test_resnet", "test_efficientnet"),
        batch=4,
        time=True,
        repeats=7,
        published={
            "sanet/test_resnet": Published(parameters=2.0, macs=3.0, miou=60.9, note="because of the head"),
            "fcn/test_resnet": Published(macs=1.0),
        },
    )
    timing = Timing(0.5, 0.25, 1.0, 7)
    costs = [
        Cost("sanet", "test_resnet", 512, 512, 2_010_000, 3_300_000_000, 5 * 2**20, timing),
        Cost("sanet", "test_efficientnet", 512, 512, problem="no such, thing"),
        Cost("fcn", "test_resnet", 512, 512, 1_000_000, 2_000_000_000, 2**20, timing),
        Cost("fcn", "test_efficientnet", 512, 512, 123_456_789, 10, 1, problem="not timed: too large"),
    ]
    return Profile(config, costs, Machine("a processor", 2, "2.0"))


def cells(table):
    """Header and rows of a pipe table."""
    header, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert all(re.fullmatch(":-+|-+:", cell) for cell in rule)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_tables_say_what_was_found():
    text = render(made_up())
    costs = cells(next(block for block in text.split("\n\n") if block.startswith("|")))
    assert costs[0] == {
        "network": "sanet/test_resnet",
        "parameters (M)": "2.01 (2, +0.5 %)",
        "MACs (G)": "3.30 (3, +10.0 %)",
        "memory (MiB)": "5",
        "latency (ms)": "500.00",
        "10-90 % (ms)": "250.00 - 1000.00",
        "images/s": "8.00",
        "mIoU (%)": "60.9",
    }
    assert set(list(costs[1].values())[1:]) == {"—"}
    assert costs[2]["MACs (G)"] == "2.00 (1, +100.0 %)"
    assert (costs[3]["parameters (M)"], costs[3]["latency (ms)"]) == ("123.46", "—")
    assert "- sanet/test_resnet: because of the head" in text
    assert "- sanet/test_efficientnet: no such, thing" in text
    assert "7 passes after 3" in " ".join(text.split())


def test_the_csv_file_has_every_figure_in_full(tmp_path):
    found = made_up()
    write(found, tmp_path)
    with (tmp_path / "profile.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [{key: "" if value is None else str(value) for key, value in row.items()} for row in records(found)]
    assert rows == expected
    assert (rows[0]["macs"], rows[0]["latency_s"], rows[0]["images_per_s"]) == ("3300000000", "0.5", "8.0")
    assert (rows[1]["problem"], rows[1]["macs"]) == ("no such, thing", "")
    assert (tmp_path / "profile.md").read_text() == f"{render(found)}\n"


def test_the_plot_is_an_image(tmp_path):
    *_, png, svg = write(made_up(), tmp_path)
    pixels = np.asarray(Image.open(png).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SanetError, match=r"--output: .*file is there already"):
        write(made_up(), tmp_path / "file")


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"networks": ()}, "networks []: one or more"),
        ({"sizes": ((64, 64), (64, 64))}, "sizes [[64, 64], [64, 64]]: one or more, none twice"),
        ({"sizes": ((16, 64),)}, "sizes 16: from 32 to"),
        ({"batch": 0}, "batch 0: from 1 to"),
        ({"threads": 0}, "threads 0: from 1 to"),
        ({"precision": "bf16"}, "Choices: 16-mixed, 32-true, bf16-mixed"),
        ({"published": {"sannet": Published()}}, "did you mean 'sanet'?"),
        ({"published": {"fcn": Published()}, "backbones": ("resnet50", "resnet101")}, "fcn/resnet50"),
        ({"published": {"fcn": Published()}, "sizes": ((32, 32), (64, 64))}, "sizes has 2"),
    ],
)
def test_settings_that_cannot_be_are_answered_with_the_value_and_the_remedy(settings, message):
    with pytest.raises(UsageError) as caught:
        ProfileConfig(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize("settings", [{"miou": 101}, {"macs": 0}, {"parameters": -1}])
def test_published_figures_that_cannot_be(settings):
    with pytest.raises(UsageError, match=next(iter(settings))):
        Published(**settings)


def test_an_unknown_network_or_backbone_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="'sanet'"):
        profile(ProfileConfig(networks=("sannet",)))
    with pytest.raises(UsageError, match="unknown backbone 'resnet102'"):
        profile(ProfileConfig(backbones=("resnet102",)))


def test_the_command_prints_the_tables_and_writes_them(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(
        "networks: [sanet, fcn]\nbackbones: [test_resnet]\nsizes: [[64, 96]]\nnum_classes: 3\ntime: true\nrepeats: 2\n"
        "threads: 1\ndevice: cpu\npublished: {sanet: {miou: 50, macs: 0.1}, fcn: {miou: 40}}\n"
    )
    output = tmp_path / "out"
    options = ["--config", str(tmp_path / "c.yaml"), "--output", str(output), "--batch", "2"]
    assert main(["profile", *options]) == 0
    printed = capsys.readouterr().out
    assert (output / "profile.md").read_text() in printed
    assert {path.name for path in output.glob("[!.]*")} == {
        "profile.csv", "profile.md", "accuracy-cost.png", "accuracy-cost.svg",
    }  # fmt: skip
    with (output / "profile.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = cells(next(block for block in printed.split("\n\n") if block.startswith("| network")))
    for row, line in zip(rows, shown, strict=True):
        assert float(line["parameters (M)"].split()[0]) == pytest.approx(int(row["parameters"]) / 1e6, abs=0.005)
        assert float(line["memory (MiB)"]) == pytest.approx(int(row["activation_bytes"]) / 2**20, abs=0.5)
        assert float(line["latency (ms)"]) == pytest.approx(float(row["latency_s"]) * 1e3, abs=0.005)
        assert float(row["images_per_s"]) == pytest.approx(2 / float(row["latency_s"]))
        assert (row["batch"], row["repeats"], row["threads"], row["miou"]) == ("2", "2", "1", line["mIoU (%)"])


def test_the_command_tells_by_its_status_that_a_row_has_no_figures(capsys):
    options = ["--backbones", "[test_resnet]", "--sizes", "[[64, 64]]"]
    assert main(["profile", *options, "--networks", "[fcn, smp_fpn]"]) == 1
    assert "network 'smp_fpn': needs output stride 32" in capsys.readouterr().out
    assert main(["profile", *options, "--networks", "[smp_fpn]"]) == 2
    assert main(["profile", *options, "--networks", "[sannet]"]) == 2
    assert "did you mean 'sanet'?" in capsys.readouterr().err
