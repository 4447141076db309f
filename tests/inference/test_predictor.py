import copy

import numpy as np
import pytest
import torch
from PIL import Image

from sanet.config import InferenceConfig
from sanet.inference.device import choose_device
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.structures import LabelSet, SanetError, UsageError

LABELS = LabelSet(("sky", "road", "car"))


@pytest.fixture(scope="module")
def model():
    """A network that finds all classes in noise."""
    torch.manual_seed(0)
    model = create_model("sanet", "test_resnet", labels=LABELS).eval()
    with torch.inference_mode():
        logits = model(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)).logits
        model.head.mask.bias -= logits.mean(dim=(0, 2, 3))
    return model


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (47, 61, 3), dtype=np.uint8)


def test_equals_the_network_itself(model, pixels):
    mask = Predictor(model, "cpu")(pixels)
    with torch.inference_mode():
        logits = model(torch.from_numpy(pixels).permute(2, 0, 1)[None]).logits
    assert mask.dtype == np.uint8
    assert np.bincount(mask.ravel()).min() > 100
    assert np.array_equal(mask, logits.argmax(1)[0].numpy())


def test_a_directory_predicts_like_the_model_it_was_saved_from(model, pixels, tmp_path):
    model.save_pretrained(tmp_path)
    predictor = Predictor(tmp_path, "cpu")
    assert predictor.labels == LABELS
    assert np.array_equal(predictor(pixels), Predictor(model, "cpu")(pixels))


def test_pil_and_grey_pictures(model, pixels):
    predictor = Predictor(model, "cpu")
    assert np.array_equal(predictor(Image.fromarray(pixels)), predictor(pixels))
    grey = pixels[..., 0]
    assert np.array_equal(predictor(grey), predictor(np.stack([grey] * 3, axis=-1)))
    assert np.array_equal(predictor(Image.fromarray(grey)), predictor(grey))


def test_the_exif_rotation_of_a_pil_picture_is_applied(model, pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    predictor = Predictor(model, "cpu")
    turned = np.ascontiguousarray(np.rot90(pixels, -1))
    assert np.array_equal(predictor(Image.open(tmp_path / "turned.png")), predictor(turned))


def test_large_pictures_go_through_windows(model):
    seen = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:]))
    mask = Predictor(model, "cpu", InferenceConfig(window=64))(np.zeros((150, 200, 3), np.uint8))
    handle.remove()
    assert mask.shape == (150, 200)
    assert len(seen) > 1
    assert set(seen) == {(64, 64)}


def test_scales_and_flip_average_probabilities(model, pixels):
    mask = Predictor(model, "cpu", InferenceConfig(flip=True))(pixels)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        views = model(image).logits.softmax(1) + model(image.flip(-1)).logits.softmax(1).flip(-1)
    assert np.array_equal(mask, views.argmax(1)[0].numpy())


@pytest.mark.parametrize(
    ("picture", "named"),
    [
        (np.zeros((40, 40, 3), np.float32), "float32"),
        (np.zeros((40, 40, 4), np.uint8), r"\(40, 40, 4\)"),
        (np.zeros((64, 0, 3), np.uint8), r"\(64, 0, 3\)"),
        (np.zeros((), np.uint8), r"\(\)"),
        (torch.zeros(40, 40, 3, dtype=torch.uint8), r"\(40, 40, 3\)"),
        (torch.zeros(3, 0, 40, dtype=torch.uint8), r"\(3, 0, 40\)"),
        (torch.zeros(3, 40, 40), "float32"),
        (Image.new("RGB", (0, 0)), "no|shape"),
        (None, "NoneType"),
        (b"street.png", "bytes"),
    ],
)
def test_other_arrays_are_refused(model, picture, named):
    with pytest.raises(UsageError, match=named):
        Predictor(model, "cpu")(picture)


def test_a_file_that_is_no_picture_is_named(model, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    predictor = Predictor(model, "cpu")
    for picture in (tmp_path / "none.png", str(tmp_path / "broken.png"), tmp_path, "", "a\0b"):
        with pytest.raises(SanetError):
            predictor(picture)
    with Image.open(tmp_path / "torn.png") as torn, pytest.raises(SanetError):
        predictor(torn)


def test_a_picture_may_be_a_file_a_tensor_or_a_view(model, pixels, tmp_path):
    predictor = Predictor(model, "cpu")
    expected = predictor(pixels)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for picture in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        torch.from_numpy(pixels).permute(2, 0, 1),
        torch.from_numpy(pixels.transpose(2, 0, 1).copy()),
        pixels[::-1].copy()[::-1],
    ):
        assert np.array_equal(predictor(picture), expected)
    pixels.flags.writeable = False
    assert np.array_equal(predictor(pixels[..., ::-1]), predictor(pixels[..., ::-1].copy()))
    assert predictor(pixels[:1]).shape == (1, 61)
    assert predictor(pixels[:, :1]).shape == (47, 1)
    assert predictor(pixels[0]).shape == (61, 3)  # grey
    assert predictor(pixels[:1, :1]).shape == (1, 1)


def test_a_model_says_in_which_size_it_sees(model, pixels, tmp_path):
    """Its copies by whatever path, and what is asked for wins."""
    plain = Predictor(model, "cpu")
    enlarged = Predictor(model, "cpu", InferenceConfig(shorter_side=96))(pixels)
    assert plain.inference.shorter_side == 0
    assert (enlarged != plain(pixels)).any()
    meant = copy.deepcopy(model)
    meant.shorter_side = 96
    meant.save_pretrained(tmp_path / "model")
    for given in (meant, tmp_path / "model", tmp_path / "model" / ".." / "model"):
        predictor = Predictor(given, "cpu", InferenceConfig(window=512))
        assert predictor.inference == InferenceConfig(window=512, shorter_side=96)
        assert np.array_equal(predictor(pixels), enlarged)
        assert np.array_equal(Predictor(given, "cpu", InferenceConfig(shorter_side=0))(pixels), plain(pixels))
        assert np.array_equal(Predictor(given, "cpu", predictor.inference)(pixels), enlarged)


def test_sixteen_bits_are_refused_as_they_do_not_say_their_range(model):
    values = np.random.default_rng(0).integers(0, 65536, (40, 50), dtype=np.uint16)
    with pytest.raises(UsageError, match="more than 8 bits"):
        Predictor(model, "cpu")(Image.fromarray(values))


def test_more_than_256_classes():
    model = create_model("fcn", "test_resnet", num_classes=300)
    torch.nn.init.zeros_(model.head.classifier.weight)
    model.head.classifier.bias.data = torch.arange(300.0)
    mask = Predictor(model, "cpu")(np.zeros((40, 40, 3), np.uint8))
    assert mask.dtype == np.uint16
    assert (mask == 299).all()


def test_other_channels_and_a_wider_range():
    """What a model of five channels of 16 bits says of an image is what its network says."""
    torch.manual_seed(0)
    model = create_model("fcn", "test_resnet", labels=LABELS, in_chans=5, value_range=65535).eval()
    predictor, image = (
        Predictor(model, "cpu"),
        np.random.default_rng(0).integers(0, 65536, (47, 61, 5), dtype=np.uint16),
    )
    tensor = torch.from_numpy(image.astype(np.int64)).permute(2, 0, 1)
    with torch.inference_mode():
        expected = model(tensor[None]).logits.argmax(1)[0].numpy()
    assert np.array_equal(predictor(image), expected)
    assert np.array_equal(predictor(tensor), expected)
    assert predictor(image[..., 0]).shape == (47, 61)
    small = Predictor(model, "cpu", InferenceConfig(window=32, scales=(0.8, 1.0), flip=True))(image)
    assert small.shape == (47, 61)
    for wrong in (image[..., :3], image.astype(np.float32)):
        with pytest.raises(UsageError, match=r"shape|float32"):
            predictor(wrong)


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99", ""])
def test_a_device_that_does_not_exist_is_named(model, name):
    with pytest.raises(SanetError, match=f"device '{name}'"):
        Predictor(model, name)


@pytest.mark.parametrize(("found", "chosen"), [(None, "cpu"), ("cuda", "cuda"), ("mps", "mps"), ("hpu", "cpu")])
def test_the_best_device_there_is(monkeypatch, found, chosen):
    device = None if found is None else torch.device(found)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: device)
    assert choose_device() == torch.device(chosen)
    assert choose_device("cpu") == torch.device("cpu")


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(SanetError, match="nothing-here"):
        Predictor(tmp_path / "nothing-here")
