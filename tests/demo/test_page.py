"""The page in a real browser: what a visitor does, what a careless or a malicious one does, and many at once."""

import gc
import http.client
import io
import json
import os
import re
import shutil
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from sanet.demo.config import DemoConfig
from sanet.demo.serve import served
from sanet.demo.visit import Visit
from sanet.insight.groups import Explainer
from sanet.structures import SanetError, UsageError

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium; `make test` installs it as root")
PATIENCE = 60_000
EXAMPLE = ".gallery-item"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name in ("sanet", "fcn"):
        network = sanet.create_model(name, "test_resnet", num_classes=4, output_stride=8)
        network.save_pretrained(folder / name / "model")
    return [folder / "sanet" / "model", folder / "fcn" / "model"]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(models, tmp_path_factory):
    example = tmp_path_factory.mktemp("examples") / "corner.png"
    example.write_bytes(png(30, 90))
    with served(models, DemoConfig(port=0, largest_megabytes=1, largest_megapixels=0.5), [example]) as address:
        yield address


@pytest.fixture
def encodings(monkeypatch):
    """The sizes of the pictures that were encoded."""
    sizes, encode = [], Explainer.encode

    def counted(self, image):
        sizes.append(tuple(image.shape[1:]))
        return encode(self, image)

    monkeypatch.setattr(Explainer, "encode", counted)
    return sizes


@contextmanager
def opened(browser, address):
    """A page of a visitor's own; everything it asks for comes from the server that it was opened at."""
    context, hosts = browser.new_context(), set()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if "//" in request.url else None)
    page.goto(address)
    page.wait_for_selector("#upload input[type=file]", state="attached")
    try:
        yield page
    finally:
        context.close()
    assert hosts == {address.split("/")[2]}


def png(height, width, seed=0):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def upload(page, content, name="street.png"):
    page.set_input_files("#upload input[type=file]", {"name": name, "mimeType": "image/png", "buffer": content})


def pixels(page, selector):
    """What an image on the page shows, (H, W, 3)."""
    url = page.get_attribute(selector, "src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(url).body())).convert("RGB")).astype(int)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


def open_visits():
    return {id(item) for item in gc.get_objects() if isinstance(item, Visit)}


def status(page, text, pane="first"):
    page.wait_for_function(
        "([pane, text]) => document.getElementById(`${pane}-status`)?.innerText.includes(text)", arg=[pane, text]
    )


def test_a_visit(browser, address, encodings):
    """Upload, overlay, two clicks, class switch, second model: the picture is encoded once by each."""
    with opened(browser, address) as page:
        upload(page, png(60, 80))
        status(page, "80 x 60 pixels")
        shown = page.wait_for_selector("#first-picture img")
        assert encodings == [(60, 80)]
        tinted = pixels(page, "#first-picture img")
        assert tinted.shape == (720, 960, 3)

        box = shown.bounding_box()
        page.click("#first-picture img", position={"x": box["width"] / 4, "y": box["height"] / 2})
        page.wait_for_selector("#first-groups figure")
        status(page, "point 2")
        assert page.locator("#first-groups figure").count() == 4
        first = page.get_attribute("#first-groups img", "src")
        page.click("#first-picture img", position={"x": box["width"] * 3 / 4, "y": box["height"] / 2})
        status(page, "point 6")
        page.wait_for_function("old => document.querySelector('#first-groups img').src != old", arg=first)
        page.click("#channel input[value=main]")
        page.wait_for_timeout(300)
        assert encodings == [(60, 80)]

        # Every class hidden, the picture itself is left, but for what JPEG and the point cost.
        original = np.asarray(
            Image.open(io.BytesIO(png(60, 80))).resize((960, 720), Image.Resampling.BILINEAR), dtype=int
        )
        away = np.abs(tinted - original).mean()
        for index in range(page.locator("#first-legend input").count()):
            page.click(f"#first-legend input >> nth={index}")
        wait_until(lambda: np.abs(pixels(page, "#first-picture img") - original).mean() < away / 3)

        page.click("#rival input")
        page.get_by_role("option", name="fcn").click()
        status(page, "no attention to look into", "second")
        assert encodings == [(60, 80)] * 2


def test_an_example(browser, address, encodings):
    with opened(browser, address) as page:
        page.click(EXAMPLE)
        status(page, "90 x 30 pixels")
    assert encodings == [(30, 90)]


def test_the_packages_own_model_on_a_street(browser, tmp_path):
    """The pictures that the documentation shows; they are kept where SANET_SCREENSHOTS says."""
    folder = Path(os.environ.get("SANET_SCREENSHOTS", tmp_path))
    with served([], DemoConfig(port=0)) as address, opened(browser, address) as page:
        page.set_viewport_size({"width": 1280, "height": 1000})
        page.click(f"{EXAMPLE} >> nth=-1")
        status(page, "480 x 360 pixels")
        legend = page.inner_text("#first-legend")
        assert all(name in legend for name in ("road", "building", "sky"))
        box = page.wait_for_selector("#first-picture img").bounding_box()
        page.click("#first-picture img", position={"x": 0.6 * box["width"], "y": 0.75 * box["height"]})
        page.wait_for_function("document.querySelectorAll('#first-groups img').length == 4")
        page.wait_for_timeout(500)
        page.screenshot(path=folder / "demo.png", full_page=True)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=folder / "demo-phone.png", full_page=True)


def test_downloads(browser, address):
    with opened(browser, address) as page:
        upload(page, png(60, 80))
        page.wait_for_selector("#first-picture img")
        for what in ("mask", "overlay"):
            with page.expect_download() as download:
                page.click(f"#get-{what}")
            assert download.value.suggested_filename == f"street-{what}.png"
            with Image.open(download.value.path()) as stored:
                assert (stored.size, stored.mode) == ((80, 60), "P" if what == "mask" else "RGB")
        page.click("#get-figure")
        page.get_by_text("click on a picture").wait_for()
        page.click("#first-picture img")
        status(page, "point")
        with page.expect_download() as download:
            page.click("#get-figure")
        assert Image.open(download.value.path()).width > 600


def test_what_is_no_picture_or_too_large_is_told_why(browser, address, encodings):
    with opened(browser, address) as page:
        upload(page, b"hello, this is a letter", "letter.png")
        page.get_by_text("letter.png is no picture").wait_for()
        upload(page, png(10, 10)[:60], "half.png")
        page.get_by_text("half.png cannot be read").wait_for()
        upload(page, png(1, 1) + bytes(1_100_000), "heavy.png")
        page.get_by_text("exceeds the maximum").or_(page.get_by_text("maximum allowed size")).first.wait_for()
        blank = io.BytesIO()
        Image.new("L", (1000, 600)).save(blank, "PNG")
        upload(page, blank.getvalue(), "wide.png")
        page.get_by_text("wide.png is 1000 x 600; the page takes up to 0.5 million pixels").wait_for()
        # And after all that it still works.
        upload(page, png(40, 50))
        status(page, "50 x 40 pixels")
    assert encodings == [(40, 50)]


def test_ten_visitors_at_once_get_their_own_pictures(browser, address, encodings):
    with ExitStack() as stack:
        pages = [stack.enter_context(opened(browser, address)) for _ in range(10)]
        for index, page in enumerate(pages):
            upload(page, png(40 + index, 60, index), f"{index}.png")
        for index, page in enumerate(pages):
            status(page, f"60 x {40 + index} pixels")
    assert sorted(encodings) == [(40 + index, 60) for index in range(10)]


def test_too_many_waiting_are_told_that_it_is_busy(browser, models, monkeypatch):
    running, release, encode = threading.Semaphore(0), threading.Event(), Explainer.encode

    def slow(self, image):
        running.release()
        release.wait(60)
        return encode(self, image)

    monkeypatch.setattr(Explainer, "encode", slow)
    with served(models[:1], DemoConfig(port=0, waiting=1)) as address, opened(browser, address) as first:
        upload(first, png(40, 40))
        assert running.acquire(timeout=60)
        with opened(browser, address) as second, opened(browser, address) as third:
            upload(second, png(50, 50))
            second.wait_for_timeout(1500)
            upload(third, png(60, 60))
            third.get_by_text(re.compile("busy", re.IGNORECASE)).first.wait_for()
            release.set()
            status(first, "40 x 40")
            status(second, "50 x 50")


def test_pictures_are_forgotten(browser, models, tmp_path, monkeypatch):
    """After the stated time nothing of a visit is left on disk or in memory, and at the end no folder."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = open_visits()
    with served(models[:1], DemoConfig(port=0, keep_minutes=0.05)) as address, opened(browser, address) as page:
        upload(page, png(40, 50))
        status(page, "50 x 40")
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert files
        wait_until(lambda: not any(path.is_file() for path in tmp_path.rglob("*")))
        wait_until(lambda: gc.collect() < 0 or not open_visits() - before)
        page.click("#first-picture img")
        page.get_by_text("first drop a picture").wait_for()
        upload(page, png(40, 60))
        status(page, "60 x 40")
        assert open_visits() - before
        page.close()
        wait_until(lambda: gc.collect() < 0 or not open_visits() - before, 3)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_bodies_too_large_are_refused_before_they_come(address):
    host = address.removeprefix("http://").rstrip("/")
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(10**9))
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.endheaders()  # and no body at all
        assert connection.getresponse().status == 413
        connection.close()


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "/proc/self/environ", "../../etc/passwd"])
def test_no_other_file_is_served(address, path):
    from urllib.error import HTTPError

    with pytest.raises(HTTPError) as refused, urlopen(Request(f"{address}gradio_api/file={path}"), timeout=20):
        pass
    assert refused.value.code in {403, 404}


def test_no_other_file_is_taken_for_an_upload(address, tmp_path, encodings):
    """By a visitor who speaks to the server without the page."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(30, 40))
    config = json.load(urlopen(f"{address}config", timeout=20))
    first = next(entry for entry in config["dependencies"] if any("upload" in target for target in entry["targets"]))
    body = {
        "data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}],
        "fn_index": first["id"],
        "session_hash": "intruder",
    }
    join = Request(f"{address}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"})
    urlopen(join, timeout=20).close()
    with urlopen(f"{address}gradio_api/queue/data?session_hash=intruder", timeout=20) as events:
        messages = [json.loads(line[5:]) for line in events if line.startswith(b"data:")]
    done = next(message for message in messages if message["msg"] == "process_completed")
    assert not done["success"]
    assert "secret" not in str(done["output"].get("error", ""))
    assert encodings == []


def test_it_listens_on_this_computer_alone_and_says_when_a_port_is_taken(address, models):
    assert address.startswith("http://127.0.0.1:")
    port = int(address.rstrip("/").rpartition(":")[2])
    with (
        pytest.raises(SanetError, match=rf"port {port} .* name another with --port"),
        served(models[:1], DemoConfig(port=port)),
    ):
        pass
    with pytest.raises(UsageError, match="named twice"), served([models[0], models[0]], DemoConfig(port=0)):
        pass
