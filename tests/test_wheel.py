"""The wheel as a stranger installs it: built here, and run where no checkout, network, setting or kept file helps."""

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from PIL import Image

from miniatures import write_halves

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError("no network here")
sys.addaudithook(refuse)
"""
PLACES = "import sysconfig; print(*(sysconfig.get_path(name) for name in ('purelib', 'scripts')), sep='\\n')"
TINY = ["--model.backbone", "test_resnet", "--model.pretrained_backbone", "false", "--augmentation.crop", "[32,32]"]


def pip(*words):
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def stranger(wheel, tmp_path_factory):
    """A folder with a photograph, and a way to run what is installed for it.

    What the package needs is the running environment's; a .pth file of that, as of a checkout, counts for nothing.
    """
    folder = tmp_path_factory.mktemp("stranger")
    venv.create(folder / "venv")
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    places = subprocess.check_output([scripts / "python", "-c", PLACES], text=True).splitlines()
    pip("--python", scripts / "python", "install", "--no-deps", "--no-index", wheel)
    own = subprocess.check_output([sys.executable, "-c", PLACES], text=True).splitlines()
    Path(places[0], "needed.pth").write_text(own[0], encoding="utf-8")
    Path(places[0], "sitecustomize.py").write_text(OFFLINE, encoding="utf-8")
    (folder / "home").mkdir()
    rows, columns = np.mgrid[:300, :400]
    Image.fromarray(np.stack([rows, columns // 2, rows // 2], axis=-1).astype(np.uint8)).save(folder / "photo.jpg")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SANET", "HF_", "COV"))}
    homes = dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME"), str(folder / "home"))

    def run(program, *words):
        done = subprocess.run([scripts / program, *words], cwd=folder, env=kept | homes, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return SimpleNamespace(folder=folder, run=run)


@pytest.mark.slow
def test_a_photograph_is_labelled_within_a_minute_of_the_installation(stranger):
    before = os.times()
    stranger.run("sanet", "predict", "photo.jpg")
    after = os.times()
    (mask,) = (stranger.folder / "predictions").rglob("photo*.png")
    assert Image.open(mask).size == (400, 300)
    # Of computing, since the machine may be busy with other things.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 60


@pytest.mark.slow
def test_a_network_is_trained_and_used_without_the_checkout(stranger):
    found = stranger.run("python", "-c", "import sanet; print(sanet.__file__)")
    assert Path(found.strip()).is_relative_to(stranger.folder)
    write_halves(stranger.folder / "halves")
    words = ["--epochs", "1", "--batch_size", "2", "--num_workers", "0", "--accelerator", "cpu"]
    stranger.run("sanet", "train", "--data.root", "halves", "--output", "run", *TINY, *words)
    stranger.run("sanet", "predict", "photo.jpg", "--model", "run", "--output", "own")
    assert [*(stranger.folder / "own").rglob("photo*.png")]
    assert "usage: sanet demo" in stranger.run("sanet", "demo", "--help")
    examples = "from sanet.demo.serve import EXAMPLES; print(len([*EXAMPLES.glob('*.jpg')]))"
    assert stranger.run("python", "-c", examples).strip() == "2"


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone_and_says_what_it_needs(wheel):
    with ZipFile(wheel) as file:
        names = {Path(name) for name in file.namelist()}
        (place,) = (name for name in names if name.name == "METADATA")
        metadata = Metadata.from_email(file.read(place.as_posix()))  # whose fields are checked
    package = ROOT / "src" / "sanet"
    held = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in names if name.parts[0] == "sanet"} == {path.relative_to(ROOT / "src") for path in held}
    assert {name.parts[0] for name in names} == {"sanet", place.parts[0]}
    assert Path("sanet", "py.typed") in names
    assert wheel.stat().st_size < 15e6
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {str(need) for need in metadata.requires_dist if not need.marker}
    assert needed == {str(Requirement(need)) for need in project["dependencies"]}
    assert metadata.description.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert metadata.description_content_type == "text/markdown"
    assert str(metadata.requires_python) == project["requires-python"]
