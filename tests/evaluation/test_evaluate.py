import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from sanet.data.catalog import data_source
from sanet.evaluation.evaluate import evaluate_dataset
from sanet.structures import SanetError

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


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return sanet.create_model("fcn", "test_resnet", labels=sanet.LabelSet(NAMES, background=0)).eval()


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
    assert np.array_equal(evaluation.confusion, expected)
    assert list(evaluation.picture_miou) == ["0", "1", "2", "3", "4"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scores.json", "report.html"}


def test_the_worst_pictures_come_first(data):
    dataset = data_source(data).open("val")
    truths = {dataset[index].image.sum().item(): dataset[index].mask for index in range(5)}
    share_right = dict(zip(truths, (1.0, 0.2, 0.8, 0.0, 0.5), strict=True))

    def label(image):
        key = image.sum().item()
        truth = truths[key].clone()
        truth[truth == 255] = 0
        rows = round(len(truth) * share_right[key])
        truth[rows:] = 1 - truth[rows:]
        return truth

    evaluation = evaluate_dataset(label, dataset, {}, progress=False)
    assert [example.name for example in evaluation.worst] == ["3", "1", "4", "2", "0"]
    assert evaluation.worst[0].miou == 0
    assert evaluation.worst[-1].miou == 1
    assert evaluation.worst[0].truth.shape == evaluation.worst[0].image.shape[:2]


def test_a_split_means_what_it_says(data, model):
    with pytest.raises(ValueError, match="unknown split 'test'"):
        sanet.evaluate(model, data, "test", progress=False)


def test_other_classes_are_refused(data):
    model = sanet.create_model("fcn", "test_resnet", num_classes=3)
    with pytest.raises(SanetError, match="class 0, class 1, class 2"):
        sanet.evaluate(model, data, "val", progress=False)
