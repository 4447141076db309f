"""The figure and the arrays, from Python and from the command line."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from sanet.cli.main import main
from sanet.insight.explain import explain
from sanet.insight.groups import Explainer
from sanet.structures import SanetError, UsageError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return sanet.create_model("sanet", "test_resnet", num_classes=5, output_stride=8).eval()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("ending", "points"), [("png", [(3, 4)]), ("svg", [(0, 0), (89, 59), (40, 30)])])
def test_a_figure_is_written(model, image, tmp_path, ending, points):
    path = tmp_path / f"figure.{ending}"
    explain(model, image, points, path, heads=[1, 4], device="cpu")
    assert path.stat().st_size > 5000
    if ending == "png":
        width, height = Image.open(path).size
        assert height > width / 2  # four rows: the image, and three in which the heads stand side by side


def test_the_arrays_are_the_groups(model, image, tmp_path):
    points = [(3, 4), (80, 50)]
    figure, arrays = tmp_path / "figure.png", tmp_path / "maps.npz"
    explain(model, image, points, figure, save_arrays=arrays, device="cpu", shorter_side=70)
    image = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)
    encoding = Explainer(model, "cpu", 70).encode(image)
    with np.load(arrays) as maps:
        assert len(maps.files) == 2 + 2 * (4 * 3 + 1)
        np.testing.assert_array_equal(maps["prediction"], encoding.prediction)
        np.testing.assert_array_equal(maps["points"], points)
        for number, point in enumerate(points):
            np.testing.assert_array_equal(maps[f"point{number}_grad_cam"], encoding.grad_cam(*point))
            for group in encoding.groups(*point):
                for name in ("main", "distance", "output"):
                    np.testing.assert_array_equal(maps[f"head{group.stage}_point{number}_{name}"], getattr(group, name))


def test_other_networks_are_explained_by_their_features(image, tmp_path):
    fcn = sanet.create_model("fcn", "test_resnet", num_classes=5, output_stride=8)
    arrays = tmp_path / "maps.npz"
    for level in (None, 2):
        encoding = explain(fcn, image, [(3, 4)], tmp_path / "a.png", save_arrays=arrays, device="cpu", level=level)
        (group,) = encoding.groups(3, 4)
        assert group.name == f"level {level or 4}"
        with np.load(arrays) as maps:
            np.testing.assert_array_equal(maps[f"level{level or 4}_point0_distance"], group.distance)
    with pytest.raises(UsageError, match=r"heads \[4\]: this network has level 4"):
        explain(fcn, image, [(3, 4)], tmp_path / "a.png", heads=[4], device="cpu")


def test_the_command_line(model, image, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    given = ["explain", str(tmp_path / "model"), str(image), "--device", "cpu", "--output", str(tmp_path / "a.png")]
    arrays = ["--save-arrays", str(tmp_path / "a.npz")]
    chosen = ["--heads", "2", "--shorter_side", "64"]
    assert main([*given, "--point", "3", "4", "--point", "50", "20", *chosen, *arrays]) == 0
    assert "a.png" in capsys.readouterr().out
    assert (tmp_path / "a.npz").is_file()
    assert main([*given, "--point", "90", "4"]) == 2
    assert "90 wide and 60 high" in capsys.readouterr().err
    for wrong in (["--point", "3"], []):
        with pytest.raises(SystemExit):
            main([*given, *wrong])
        assert "point" in capsys.readouterr().err


def test_mistakes_are_answered_before_the_work(model, image, tmp_path):
    def explained(*args, output="a.png", **kwargs):
        explain(model, *args, tmp_path / output, device="cpu", **kwargs)

    with pytest.raises(UsageError, match="points"):
        explained(image, [])
    for heads in ([1, 5], []):
        with pytest.raises(UsageError, match=rf"heads {re.escape(str(heads))}: .* head 1, head 2, head 3, head 4"):
            explained(image, [(1, 1)], heads=heads)
    with pytest.raises(SanetError, match=r"no\.png"):
        explained(tmp_path / "no.png", [(1, 1)])
    # The first mistake is answered: that the image is missing comes out with the work.
    with pytest.raises(UsageError, match=r"a\.txt.*\.pdf"):
        explained(tmp_path / "no.png", [(1, 1)], output="a.txt")
    (tmp_path / "a.npz").touch()
    with pytest.raises(UsageError, match="--save-arrays"):
        explained(tmp_path / "no.png", [(1, 1)], save_arrays=tmp_path / "a.npz")
