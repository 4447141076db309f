"""Prediction by many processes writes what one writes, whatever happens to them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanet import files
from sanet.inference import ray_engine
from sanet.inference.journal import Job
from sanet.inference.predict import Engine, predict_collection
from sanet.inference.ray_engine import Pool, RayEngine, Worker
from sanet.structures import SanetError, UsageError

pytest.importorskip("ray")
IMAGES, BAD = 24, 11
MARK = "SANET_TEST_OF_RAY"
ALONE = """
from sanet.inference.predict import predict_collection
from sanet.inference.ray_engine import RayEngine
predict_collection(RayEngine("model", "cpu", workers=1), ["photos"], "out", progress=False)
"""


@pytest.fixture(scope="session")
def cluster():
    """One small Ray for all tests of a process; engines use it and leave it running."""
    import ray

    os.environ[MARK] = mark = str(os.getpid())
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
        logging_level="CRITICAL",
    )
    del os.environ[MARK]
    yield
    assert ray.is_initialized()
    ray.shutdown()
    kill_marked(mark)  # what did not end in time


@pytest.fixture
def collection(tmp_path, models, monkeypatch):
    """A model, and images of which one is broken, within the working directory."""
    shutil.copytree(models[0], tmp_path / "model")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        pixels = rng.integers(0, 256, (40, 50 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index:02}é.png")
    broken = image(tmp_path, BAD)
    broken.write_bytes(broken.read_bytes()[:100])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(folder, index):
    return folder / "photos" / f"{index:02}é.png"


def in_this_process(output):
    return predict_collection(Engine("model", "cpu"), ["photos"], output, progress=False)


def on_ray(output="out", workers=None):
    return predict_collection(RayEngine("model", "cpu", workers=workers), ["photos"], output, progress=False)


def contents(output):
    """All files below a folder that are not of ``files``'."""
    paths = [path for path in output.rglob("*") if path.is_file() and not files.hidden(path)]
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def dying_worker(folder, deaths):
    """A worker that is killed at the last image, so many times."""

    class Dying(Worker):  # within a function, so that it travels by value: workers cannot import this file
        def label(self, job):
            count = len(list(folder.glob("death*")))
            if f"{IMAGES - 1:02}" in job.image and count < deaths:
                (folder / f"death{count}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().label(job)

    return Dying


@pytest.mark.slow
def test_writes_what_this_process_writes(cluster, collection, monkeypatch):
    """With a worker that dies on the way; and then everything is there."""
    monkeypatch.setattr(ray_engine, "Worker", dying_worker(collection, deaths=1))
    plain, spread = in_this_process("plain"), on_ray()
    assert (collection / "death0").exists()
    assert spread == plain
    assert (plain.labelled, plain.kept, len(plain.failures)) == (IMAGES - 1, 0, 1)
    assert image(Path(), BAD).name in plain.failures[0]
    assert contents(collection / "out") == contents(collection / "plain")
    image(collection, BAD).unlink()
    text = (collection / "out" / "predictions.jsonl").read_text().splitlines()
    assert on_ray() == (0, IMAGES - 1, [])
    assert in_this_process("out") == (0, IMAGES - 1, [])
    assert (collection / "out" / "predictions.jsonl").read_text().splitlines() == text[:BAD] + text[BAD + 1 :]


@pytest.mark.slow
def test_what_is_done_stays_where_ray_gives_up(cluster, collection, monkeypatch):
    monkeypatch.setattr(ray_engine, "Worker", dying_worker(collection, deaths=9))
    monkeypatch.setattr(ray_engine, "RETRIES", 0)
    with pytest.raises(SanetError, match="the same call resumes"):
        on_ray(workers=1)
    in_this_process("plain")
    outcome = in_this_process("out")
    assert outcome.kept > 0
    assert outcome.labelled > 0
    assert contents(collection / "out") == contents(collection / "plain")


@pytest.mark.slow
def test_what_is_no_images_fault_stops_the_call(cluster, collection, monkeypatch):
    """An error of the predictor, and a model that is another one where the workers are."""

    class Failing(Worker):
        def label(self, job):
            if "03" in job.image:
                self.predictor.read = lambda path: path.out_of_memory
            return super().label(job)

    monkeypatch.setattr(ray_engine, "Worker", Failing)
    with pytest.raises(SanetError, match=r"03é.png.*out_of_memory"):
        on_ray(workers=1)
    assert in_this_process("out").kept == 3
    other = RayEngine("model", "cpu")
    other.fingerprint = "another"
    with pytest.raises(SanetError, match="another model"):
        predict_collection(other, ["photos"], "elsewhere", progress=False)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for Ray's processes in /proc")
def test_a_call_that_was_killed_is_taken_up_and_nothing_works_on(collection):
    overlays = collection / "out" / "overlays"  # the last thing of an image that takes its place
    process = subprocess.Popen([sys.executable, "-c", ALONE], env={**os.environ, MARK: str(collection)})
    try:
        wait_until(lambda: process.poll() is not None or len(list(overlays.rglob("[!.]*.jpg"))) >= 3)
        assert process.poll() is None
        assert any("Worker" in command for command in marked(collection).values())
        process.kill()
        process.wait()
        # Two agents of Ray's take a minute to see it.
        wait_until(lambda: all("Agent" in command for command in marked(collection).values()))
    finally:
        kill_marked(collection)
    outcome = in_this_process("out")
    assert outcome.kept >= 3
    in_this_process("plain")
    assert contents(collection / "out") == contents(collection / "plain")


def wait_until(true, seconds=180):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def kill_marked(mark):
    for process in marked(mark):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def marked(mark):
    """Command lines of the processes that inherited the mark, those of Ray among them."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # gone, or somebody else's
    return found


def test_a_worker_names_the_image_and_the_machine(collection):
    engine, job = (
        RayEngine("model", "cpu"),
        Job("photos/01é.png", {"mask": "out/masks/1.png", "overlay": "out/overlays/1.jpg"}),
    )
    opened = engine.model, "cpu", engine.predictor.inference
    assert "shares" in Worker(opened, engine.fingerprint, 1, str(collection)).label(job)
    for worker, problem in (
        (Worker(opened, "another", 1), "another model"),
        (Worker(opened, engine.fingerprint, 1, "/nowhere/at/all"), "/nowhere/at/all"),
        (Worker(opened, engine.fingerprint, 1, None, ["no_such_module"]), "no_such_module"),
    ):
        with pytest.raises(SanetError, match=f"photos/01é.png.*{problem}"):
            worker.label(job)


@pytest.mark.parametrize(
    ("device", "workers", "resources", "jobs", "pool"),
    [
        (None, None, {"CPU": 8.0}, 100, Pool(8, "cpu", 1)),
        (None, None, {"CPU": 8.0}, 3, Pool(3, "cpu", 2)),
        (None, 2, {"CPU": 8.0}, 100, Pool(2, "cpu", 4)),
        (None, 20, {"CPU": 8.0}, 100, Pool(8, "cpu", 1)),
        (None, None, {}, 100, Pool(1, "cpu", 1)),
        (None, None, {"CPU": 32.0, "GPU": 4.0}, 100, Pool(4, "cuda", 8)),
        ("cpu", None, {"CPU": 32.0, "GPU": 4.0}, 100, Pool(32, "cpu", 1)),
        ("cuda", 1, {"CPU": 2.0, "GPU": 4.0}, 100, Pool(1, "cuda", 2)),
    ],
)
def test_the_pool_fits_the_cluster(collection, device, workers, resources, jobs, pool):
    assert RayEngine("model", device, workers=workers)._pool(resources, jobs) == pool


def test_what_cannot_be_is_said_before_ray_starts(collection, monkeypatch):
    with pytest.raises(UsageError, match="cuda:1"):
        RayEngine("model", "cuda:1")
    with pytest.raises(UsageError, match="has no GPU"):
        RayEngine("model", "cuda")._pool({"CPU": 2.0}, 10)
    with pytest.raises(SanetError, match="nothing"):
        RayEngine("nothing")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SanetError, match=r"pip install 'sanet-segmentation\[scale\]'"):
        RayEngine("model", "cpu")
