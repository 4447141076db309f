"""A package for VOC's server, made of a miniature of the data set, and packages with every kind of fault."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from reproduce.voc_server import VOC_CLASSES, check_submission, submit

from sanet.config import DataConfig, InferenceConfig
from sanet.data import voc
from sanet.data.catalog import data_source
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.structures import LabelSet, SanetError

TEST = ("2008_000006", "2008_000011", "2008_000012", "2011_003271")
SIZES = ((40, 33), (33, 50), (64, 41), (32, 32))  # width and height
FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Four test pictures of different sizes, and one each to train and validate on."""
    monkeypatch.setattr(voc, "COUNTS", {"train": 1, "val": 1, "test": len(TEST)})
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, names in {"train": ["2007_1"], "val": ["2007_2"], "test": TEST}.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name, (width, height) in zip(names, SIZES, strict=False):
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
            if split != "test":
                Image.fromarray(pixels[..., 0] // 13).save(root / "SegmentationClass" / f"{name}.png")
    return DataConfig("voc", str(tmp_path))


def network(seed=0, labels=voc.LABELS):
    """Finds several classes in noise."""
    torch.manual_seed(seed)
    model = create_model("fcn", "test_resnet", labels=labels).eval()
    with torch.inference_mode():
        logits = model(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)).logits
        model.head.classifier.bias -= logits.mean(dim=(0, 2, 3))
    return model


def saved(folder, *arguments):
    network(*arguments).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model"))


def run(model, data, folder, **options):
    return submit(model, data.root, folder, device="cpu", **options)


def records_of(data):
    return data_source(data).records("test")


def picture_of(data, name):
    return np.array(Image.open(f"{data.root}/VOCdevkit/VOC2012/JPEGImages/{name}.jpg"))


@pytest.mark.parametrize("competition", ["comp5", "comp6"])
def test_the_archive_is_what_the_server_takes(model, data, tmp_path, competition):
    path = run(model, data, tmp_path / "out", competition=competition)
    assert path == tmp_path / "out" / "results.tgz"
    with tarfile.open(path, "r:gz") as archive:
        entries = archive.getmembers()
        assert [entry.name for entry in entries] == [
            f"results/VOC2012/Segmentation/{competition}_test_cls/{name}.png" for name in TEST
        ]
        images = [Image.open(io.BytesIO(archive.extractfile(entry).read())) for entry in entries]
    predictor, found = Predictor(model, "cpu"), set()
    for name, size, image in zip(TEST, SIZES, images, strict=True):
        assert (image.format, image.mode, image.size) == ("PNG", "P", size)
        assert np.array_equal(np.array(image), predictor(picture_of(data, name)))
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        found |= set(np.unique(image).tolist())
    assert len(found) > 5
    assert max(found) <= 20
    assert check_submission(path, records_of(data)) == []
    assert {item.name for item in (tmp_path / "out").iterdir()} == {"results", "results.tgz", "origin.json"}


def test_the_same_results_make_the_same_archive(model, data, tmp_path):
    paths = [run(model, data, tmp_path / name) for name in ("one", "two")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def labelled(monkeypatch):
    """The sizes of the pictures that are labelled from now on."""
    seen, call = [], Predictor.__call__
    monkeypatch.setattr(Predictor, "__call__", lambda self, image: seen.append(image.size) or call(self, image))
    return seen


def test_a_stopped_run_goes_on_where_it_was(model, data, tmp_path, monkeypatch):
    expected = run(model, data, tmp_path / "whole").read_bytes()
    call, done = Predictor.__call__, []

    def stopping(self, image):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(image.size)
        return call(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(model, data, tmp_path / "out")
    assert not (tmp_path / "out" / "results.tgz").exists()
    seen = labelled(monkeypatch)
    assert run(model, data, tmp_path / "out").read_bytes() == expected
    assert len(seen) == 2
    run(model, data, tmp_path / "out")
    assert len(seen) == 2


@pytest.mark.parametrize("change", ["model", "flip", "files of somebody"])
def test_results_of_another_model_or_of_other_settings_are_refused(model, data, tmp_path, change):
    expected = run(model, data, tmp_path / "out").read_bytes()
    options = {"inference": InferenceConfig(flip=True)} if change == "flip" else {}
    if change == "files of somebody":
        (tmp_path / "out" / "origin.json").unlink()
    with pytest.raises(SanetError, match="choose another output"):
        run(saved(tmp_path / "other", 1) if change == "model" else model, data, tmp_path / "out", **options)
    assert (tmp_path / "out" / "results.tgz").read_bytes() == expected


def test_an_image_that_cannot_be_read_is_named(model, data, tmp_path):
    path = tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{TEST[0]}.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SanetError, match=TEST[0]):
        run(model, data, tmp_path / "out")
    assert not (tmp_path / "out" / "results.tgz").exists()


def test_what_cannot_be_submitted_is_refused(model, data, tmp_path):
    assert voc.LABELS.names == VOC_CLASSES
    with pytest.raises(SanetError, match="cat, dog"):
        run(saved(tmp_path / "two", 0, LabelSet(("cat", "dog"))), data, tmp_path / "out")
    swapped = LabelSet((VOC_CLASSES[1], VOC_CLASSES[0], *VOC_CLASSES[2:]))
    with pytest.raises(SanetError, match="aeroplane, background"):
        run(saved(tmp_path / "swapped", 0, swapped), data, tmp_path / "out")
    (tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "test.txt").unlink()
    with pytest.raises(SanetError, match="no test images"):
        run(model, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def save(path, array, mode="P"):
    image = Image.fromarray(np.asarray(array, np.uint8))
    if mode == "P":
        image.putpalette([0] * 768)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path, "PNG")


def zeros(index):
    return np.zeros(SIZES[index][::-1])


def one_pixel(value):
    mask = zeros(1)
    mask[7, 8] = value
    return mask


# What is done to the folder of a finished package, and what the check has to say.
FAULTS = {
    "missing": (lambda folder: (folder / f"{TEST[1]}.png").unlink(), f"{TEST[1]}.png: is missing"),
    "extra": (lambda folder: save(folder / "2007_1.png", zeros(0)), "2007_1.png: is no NAME.png of an image"),
    "another suffix": (lambda folder: (folder / "note.txt").write_text("x"), "note.txt: is no NAME.png"),
    "transposed": (lambda folder: save(folder / f"{TEST[1]}.png", zeros(1).T), "is 50x33, its image 33x50"),
    "grey": (lambda folder: save(folder / f"{TEST[1]}.png", zeros(1), "L"), "PNG of mode L, not a palette PNG"),
    "colours": (lambda folder: save(folder / f"{TEST[1]}.png", zeros(1), "RGB"), "PNG of mode RGB, not a palette"),
    "ignored": (lambda folder: save(folder / f"{TEST[1]}.png", one_pixel(255)), "has the values 255; classes are 0"),
    "class 21": (lambda folder: save(folder / f"{TEST[1]}.png", one_pixel(21)), "has the values 21; classes are 0"),
    "broken": (lambda folder: (folder / f"{TEST[1]}.png").write_bytes(b"\x89PNG\r\n"), "cannot be read"),
    "jpeg": (lambda folder: Image.new("L", SIZES[1]).save(folder / f"{TEST[1]}.png", "JPEG"), "is a JPEG of mode L"),
    "link": (
        lambda folder: ((folder / f"{TEST[1]}.png").unlink(), (folder / f"{TEST[1]}.png").symlink_to("nowhere")),
        "is no plain file",
    ),
    "another competition": (lambda folder: folder.rename(folder.with_name("comp3_test_cls")), "comp3_test_cls/"),
    "another year": (
        lambda folder: folder.parents[1].rename(folder.parents[1].with_name("VOC2011")),
        "results/VOC2011/Segmentation",
    ),
    "a folder deeper": (lambda folder: save(folder / "more" / f"{TEST[1]}.png", zeros(1)), "more/"),
    "both competitions, one of them not whole": (
        lambda folder: save(folder.with_name("comp5_test_cls") / f"{TEST[1]}.png", zeros(1)),
        f"comp5_test_cls/{TEST[0]}.png: is missing",
    ),
    "nothing": (lambda folder: shutil.rmtree(folder), "holds no results"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(model, data, tmp_path, fault):
    out = tmp_path / "out"
    run(model, data, out)
    damage, message = FAULTS[fault]
    damage(out / FOLDER)
    path = tmp_path / "again.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(out / "results", "results")
    faults = check_submission(path, records_of(data))
    assert any(message in found for found in faults), faults
    only = ("another competition", "another year", "both competitions, one of them not whole")
    assert len(faults) == 1 or fault in only or fault in ("colours", "link")


def test_an_archive_that_holds_a_picture_twice_or_is_none(model, data, tmp_path):
    run(model, data, tmp_path / "out")
    with tarfile.open(tmp_path / "twice.tgz", "w:gz") as archive:
        archive.add(tmp_path / "out" / "results", "results")
        archive.add(tmp_path / "out" / FOLDER / f"{TEST[0]}.png", f"{FOLDER}/{TEST[0]}.png")
    assert check_submission(tmp_path / "twice.tgz", records_of(data)) == [f"{FOLDER}/{TEST[0]}.png: exists twice"]
    whole = (tmp_path / "out" / "results.tgz").read_bytes()
    broken = bytes([*whole[:60], whole[60] ^ 255, *whole[61:]])
    for content in (b"", b"text", broken, whole[: len(whole) // 2], whole[:-9], whole[:-1]):
        (tmp_path / "broken.tgz").write_bytes(content)
        (fault,) = check_submission(tmp_path / "broken.tgz", records_of(data))
        assert "broken.tgz cannot be read" in fault
    (fault,) = check_submission(tmp_path / "nowhere.tgz", records_of(data))
    assert "nowhere.tgz cannot be read" in fault


def test_a_package_with_a_fault_gets_no_name(model, data, tmp_path, monkeypatch):
    """Should the model find what is no class of VOC's."""
    monkeypatch.setattr(Predictor, "__call__", lambda self, image: np.full(image.size[::-1], 255, np.uint8))
    with pytest.raises(SanetError, match=rf"(?s)would not take.*{TEST[0]}.png: has the values 255"):
        run(model, data, tmp_path / "out")
    assert {item.name for item in (tmp_path / "out").iterdir()} == {"results", "origin.json"}
