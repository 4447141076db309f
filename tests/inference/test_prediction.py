"""What a model says of an image, against loops and the network itself."""

import math
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from sanet.config import InferenceConfig
from sanet.data.formats.regions import Annotation, rasterise
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model, load_model
from sanet.structures import LabelSet, UsageError

LABELS = LabelSet(("sky", "road", "car"), background=0)


@pytest.fixture(scope="module")
def model():
    """A network that finds all classes in noise."""
    torch.manual_seed(0)
    model = create_model("sanet", "test_resnet", labels=LABELS).eval()
    with torch.inference_mode():
        logits = model(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)).logits
        model.head.mask.bias -= logits.mean(dim=(0, 2, 3))
    model.temperature = 0.5
    return model


def noise(height=47, width=61, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def logits_of(model, image):
    with torch.inference_mode():
        return model(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]).logits[0].double()


def test_probabilities_are_those_of_the_calibrated_logits(model):
    found, logits = Predictor(model, "cpu")(noise()), logits_of(model, noise()) / 0.5
    shares = (logits.exp() / logits.exp().sum(0)).numpy()
    assert found.probabilities.dtype == np.float16
    np.testing.assert_allclose(found.probabilities, shares, atol=1e-3)
    np.testing.assert_allclose(found.confidence, shares.max(0), atol=1e-5)
    entropy = np.zeros(shares.shape[1:])
    for share in shares:
        entropy -= share * np.log(share)
    np.testing.assert_allclose(found.entropy, entropy, atol=1e-5)
    assert 0 < found.entropy.max() <= math.log(3)
    assert np.array_equal(found, logits.argmax(0))


@pytest.mark.parametrize("inference", [InferenceConfig(scales=(0.8, 1.0), flip=True), InferenceConfig(window=32)])
@pytest.mark.parametrize("size", [(47, 61), (20, 90), (1, 1)])
def test_a_temperature_sharpens_and_changes_no_label(model, inference, size):
    image, found = noise(*size), {}
    plain = load_model_like(model, 1.0)
    for network in (plain, model):
        found[network.temperature] = Predictor(network, "cpu", inference)(image, detail="probabilities")
    assert np.array_equal(found[1.0], found[0.5])
    cold = found[1.0].probabilities.astype(float) ** 2
    np.testing.assert_allclose(found[0.5].probabilities, cold / cold.sum(0), atol=2e-3)
    np.testing.assert_allclose(found[0.5].probabilities.max(0), found[0.5].confidence, atol=1e-3)


def load_model_like(model, temperature):
    copy = pickle.loads(pickle.dumps(model))
    copy.temperature = temperature
    return copy


def test_a_temperature_is_kept_with_the_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert load_model(tmp_path).temperature == 0.5
    assert np.array_equal(Predictor(tmp_path, "cpu")(noise()).confidence, Predictor(model, "cpu")(noise()).confidence)


def test_it_is_an_array_wherever_one_is_wanted(model):
    found = Predictor(model, "cpu")(noise())
    mask = found.mask
    assert type(mask) is np.ndarray
    assert found.shape == (47, 61) == np.asarray(found).shape
    assert found.dtype == np.uint8
    assert len(found) == 47
    assert np.array_equal(found[3:5, 7], mask[3:5, 7])
    assert isinstance(found == 1, np.ndarray)
    assert (found == 1).sum() == (mask == 1).sum()
    assert np.array_equal(found + 1, mask + 1)
    assert np.array_equal(np.unique(found), np.unique(mask))
    assert found.astype(float).mean() == mask.mean()
    assert Image.fromarray(found).size == (61, 47)
    assert torch.equal(torch.as_tensor(np.array(found)), torch.from_numpy(mask))
    assert np.asarray(found, dtype=np.int64).dtype == np.int64
    with pytest.raises(AttributeError):
        found.nothing  # noqa: B018


def test_below_a_threshold_a_pixel_is_ignored(model):
    predictor = Predictor(model, "cpu")
    plain = predictor(noise())
    middle = float(np.median(plain.confidence))
    certain = predictor(noise(), threshold=middle)
    assert np.array_equal(certain == 255, plain.confidence < np.float32(middle))
    assert 0 < (certain == 255).mean() < 1
    assert np.array_equal(certain[certain != 255], plain[certain != 255])
    assert sum(found.share for found in certain.classes.values()) == pytest.approx(1)
    assert np.array_equal(predictor(noise(), threshold=0.0), plain)


@pytest.mark.parametrize("threshold", [50, -0.1, float("nan")])
def test_a_threshold_is_a_probability(model, threshold):
    with pytest.raises(UsageError, match="threshold"):
        Predictor(model, "cpu")(noise(), threshold=threshold)


def test_a_threshold_keeps_an_ignore_index_that_is_no_byte(model):
    for ignored in (-1, 300, 70000):
        network = load_model_like(model, 1.0)
        network.labels = LabelSet(LABELS.names, ignore_index=ignored)
        predictor = Predictor(network, "cpu")
        found = predictor(noise(), threshold=float(np.quantile(predictor(noise()).confidence, 0.2)))
        assert {ignored} < set(np.unique(found).tolist()) <= {0, 1, 2, ignored}
        assert (np.array(found.indexed()) == 255).sum() == (found == ignored).sum()


def test_classes_and_regions_equal_a_flood_fill(model):
    found = Predictor(model, "cpu")(noise(30, 40))
    mask, confidence = found.mask, found.confidence
    for name, summary in found.classes.items():
        of_class = mask == LABELS.names.index(name)
        assert (summary.pixels, summary.share) == (of_class.sum(), pytest.approx(of_class.mean()))
        assert summary.confidence == pytest.approx(confidence[of_class].mean(), rel=1e-5)
    expected, seen = [], np.zeros(mask.shape, bool)
    for start in np.argwhere(mask > 0):
        if seen[tuple(start)]:
            continue
        pixels, stack = [], [tuple(start)]
        seen[tuple(start)] = True
        while stack:
            row, column = stack.pop()
            pixels.append((row, column))
            for y in range(max(row - 1, 0), min(row + 2, 30)):
                for x in range(max(column - 1, 0), min(column + 2, 40)):
                    if mask[y, x] == mask[row, column] and not seen[y, x]:
                        seen[y, x] = True
                        stack.append((y, x))
        rows, columns = np.array(pixels).T
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        expected.append((LABELS.names[mask[tuple(start)]], len(rows), box, columns.mean() + 0.5,
                         rows.mean() + 0.5, confidence[rows, columns].mean()))  # fmt: skip
    got = [(region.name, region.area, region.box, *region.center, region.confidence) for region in found.regions]
    assert len(got) == len(expected) >= 3
    for one, other in zip(sorted(got), sorted(expected), strict=True):
        assert one[:3] == other[:3]
        np.testing.assert_allclose(one[3:], other[3:], rtol=1e-5)
    of_cars = [region.area for region in found.regions if region.name == "car"]
    assert of_cars == sorted(of_cars, reverse=True)


def test_polygons_give_the_mask_back(model, tmp_path):
    found = Predictor(model, "cpu")(noise())
    annotation = Annotation("a", tmp_path, (61, 47), found.polygons(0), None, tmp_path)
    assert np.array_equal(rasterise(annotation, {"road": 1, "car": 2}, 0), found)


def test_several_images_of_any_kind(model, tmp_path):
    predictor, images = Predictor(model, "cpu"), [noise(seed=seed) for seed in range(3)] + [noise(40, 33)]
    expected = [predictor(image).mask for image in images]
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    mixed = [tmp_path / "a.png", Image.fromarray(images[1]), torch.from_numpy(images[2]).permute(2, 0, 1), images[3]]
    for given in (images, tuple(images), mixed):
        found = predictor(given)
        assert isinstance(found, list)
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    stacked = np.stack(images[:3])
    for given in (stacked, stacked.transpose(0, 3, 1, 2), torch.from_numpy(stacked).permute(0, 3, 1, 2)):
        assert all(np.array_equal(one, other) for one, other in zip(predictor(given), expected, strict=False))
        assert len(predictor(given)) == 3
    assert predictor([]) == []


def test_an_iterator_is_read_a_batch_ahead(model):
    asked = []

    def frames():
        for number in range(20):
            asked.append(number)
            yield noise(32, 32, seed=number)

    found = Predictor(model, "cpu", batch=4)(frames())
    assert asked == []
    first = next(found)
    assert asked == [0, 1, 2, 3]
    assert np.array_equal(first, Predictor(model, "cpu", batch=1)(noise(32, 32)))
    assert len(list(found)) == 19


def test_axes_and_floats(model):
    predictor, image = Predictor(model, "cpu"), noise()
    expected = predictor(image).mask
    floats = image / np.float64(255)
    for given in (floats, floats.astype(np.float32), torch.from_numpy(floats).permute(2, 0, 1)):
        assert np.array_equal(predictor(given, unit=True), expected)
        with pytest.raises(UsageError, match="unit=True"):
            predictor(given)
    halves = torch.from_numpy(floats).permute(2, 0, 1).bfloat16().requires_grad_()
    rounded = torch.round(255 * halves.detach().double()).byte()
    assert np.array_equal(predictor(halves, unit=True), predictor(rounded))
    assert np.array_equal(predictor(image.transpose(2, 0, 1)), expected)
    assert np.array_equal(predictor(image[:, :, :1]), predictor(image[..., 0]))
    for wrong, words in (
        (floats * 2, "not in"),
        (floats - 0.1, "not in"),
        (floats * np.nan, "not in"),
        (image, "uint8"),
    ):
        with pytest.raises(UsageError, match=words):
            predictor(wrong, unit=True)
    with pytest.raises(UsageError, match="transparency"):
        predictor(np.dstack([image, image[..., 0]]))


def test_what_is_given_stays_as_it_is(model):
    network = load_model_like(model, 1.0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    layouts = [parameter.stride() for parameter in network.parameters()]
    image = noise()
    copy, backwards = image.copy(), image[::-1, ::-1]
    found, expected = Predictor(network, "cpu")(backwards), Predictor(network, "cpu")(copy[::-1, ::-1]).confidence
    assert network.training
    assert layouts == [parameter.stride() for parameter in network.parameters()]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert np.array_equal(image, copy)
    backwards[:] = 0
    assert np.array_equal(found.confidence, expected), "what is asked for later is of the image as it was"


def test_threads_share_a_predictor(model):
    predictor, images = Predictor(model, "cpu"), [noise(seed=seed) for seed in range(8)]
    expected = [predictor(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(predictor, images))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one.confidence, other.confidence)


def test_pickling(model, tmp_path):
    model.save_pretrained(tmp_path)
    for given in (model, tmp_path):
        predictor = Predictor(given, "cpu", InferenceConfig(flip=True), 3)
        copy = pickle.loads(pickle.dumps(predictor))
        assert (copy.inference, copy.batch, copy.labels) == (predictor.inference, 3, LABELS)
        found = predictor(noise())
        assert np.array_equal(copy(noise()).probabilities, found.probabilities)
    kept = pickle.loads(pickle.dumps(found))
    assert np.array_equal(kept, found)
    assert np.array_equal(kept.entropy, found.entropy)
    assert repr(kept) == repr(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_is_refused(model):
    predictor = Predictor(model, "cpu")
    predictor(noise())
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child():
        try:
            predictor(noise())
            sender.send("labelled")
        except UsageError as error:
            sender.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert receiver.poll(60)
    assert "spawn" in receiver.recv()
    process.join()


def test_files_and_what_is_shown(model, tmp_path):
    found = Predictor(model, "cpu")(noise(), threshold=0.5)
    found.save(tmp_path / "a.png")
    found.save(tmp_path / "a.jpg")
    found.save(str(tmp_path / "a.npz"))
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), found)
    assert Image.open(tmp_path / "a.jpg").height == 47
    with np.load(tmp_path / "a.npz") as archive:
        for name in ("mask", "probabilities", "confidence", "entropy"):
            assert np.array_equal(archive[name], getattr(found, name))
    with pytest.raises(UsageError, match=r"\.png, \.jpg, \.npz"):
        found.save(tmp_path / "a.tif")
    assert np.array_equal(found.image, noise())
    assert found.overlay(0, legend=False).tobytes() == noise().tobytes()
    assert "61 x 47" in repr(found)
    assert found._repr_html_().startswith("<img")
    assert "sky, road, car" in repr(Predictor(model, "cpu"))


def test_images_of_other_ranges_are_shown(tmp_path):
    model = create_model("fcn", "test_resnet", labels=LABELS, in_chans=5, value_range=65535).eval()
    image = np.random.default_rng(0).integers(0, 65536, (40, 50, 5), dtype=np.uint16)
    found = Predictor(model, "cpu")(image)
    np.testing.assert_allclose(found.image, image[..., :3] / 257, atol=0.51)
    assert np.array_equal(Predictor(model, "cpu")(image / 65535, unit=True), found)
