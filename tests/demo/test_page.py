"""The page in a real browser: what a visitor does, what a careless or a malicious one does, and many at once."""

import base64
import gc
import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from sanet.demo.config import DemoConfig
from sanet.demo.limits import no_fetching
from sanet.demo.serve import served
from sanet.demo.visits import Visits
from sanet.insight.groups import Explainer
from sanet.structures import LabelSet, SanetError, UsageError

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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

    if BROWSER is None:
        answer = pytest.fail if os.environ.get("CI") else pytest.skip
        answer("no chromium; `make test` installs it as root")
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
        for channel in ("main", "output", "attention"):
            last = page.get_attribute("#first-groups img", "src")
            page.click(f"#channel input[value={channel}]")
            page.wait_for_function("old => document.querySelector('#first-groups img').src != old", arg=last)
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


# A file as the browser has it, from the base64 of its content.
FILE = "new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], 'street.png', {type: 'image/png'})"


def test_names_are_text_wherever_they_stand(browser, tmp_path, monkeypatch):
    """Of classes, models and files: no element, no code, no template, no link comes of them."""
    names = (
        '<img src=x onerror="window.hit=1">',
        "${window.hit=1}",
        "`+(window.hit=1)+`",
        "{{7*7}}",
        "[x](javascript:1)",
    )
    network = sanet.create_model("sanet", "test_resnet", labels=LabelSet(names), output_stride=8)
    each, encode = torch.arange(64 * 64).view(64, 64) % len(names), Explainer.encode
    monkeypatch.setattr(Explainer, "encode", lambda self, image: encode(self, image)._replace(prediction=each))
    model = tmp_path / "<img src=x onerror=window.hit=1>"
    network.save_pretrained(model)
    with served([model], DemoConfig(port=0)) as address, opened(browser, address) as page:
        upload(page, b"none", "<img src=x onerror=window.hit=1>.png")
        page.wait_for_selector(".toast-body")
        assert "<img src=x onerror=window.hit=1>.png is no picture" in page.inner_text(".toast-body")
        upload(page, png(64, 64), "<img src=x onerror=window.hit=1>.png")
        page.wait_for_selector("#first-legend .name")
        shown = page.locator("#first-legend .name").all_inner_texts()
        assert sorted(shown) == sorted(names)
        page.wait_for_timeout(300)
        assert page.evaluate("window.hit") is None
        assert page.locator("img[src=x]").count() == 0


def test_a_picture_that_is_dropped(browser, address, encodings):
    with opened(browser, address) as page:
        content = base64.b64encode(png(60, 80)).decode()
        dropped = page.evaluate_handle(
            f"content => {{ const data = new DataTransfer(); data.items.add({FILE}); return data }}", content
        )
        page.dispatch_event("#upload button:has(input[type=file])", "drop", {"dataTransfer": dropped})
        status(page, "80 x 60 pixels")
    assert encodings == [(60, 80)]


def test_pictures_that_are_pasted(browser, address, encodings):
    """By the keyboard, also over one that is there, and by the button."""
    with opened(browser, address) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        for height, paste in (
            (60, lambda: page.keyboard.press("Control+V")),
            (50, lambda: page.keyboard.press("Control+V")),
            (40, lambda: page.click("#upload button[aria-label='Paste from clipboard']")),
        ):
            content = base64.b64encode(png(height, 80)).decode()
            page.evaluate(
                f"content => navigator.clipboard.write([new ClipboardItem({{'image/png': {FILE}}})])", content
            )
            paste()
            status(page, f"80 x {height} pixels")
    assert encodings == [(60, 80), (50, 80), (40, 80)]


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
        assert not page.get_by_text("Download", exact=True).first.is_visible()
        page.screenshot(path=folder / "demo.jpg", quality=88, type="jpeg", full_page=True)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.evaluate("document.getElementById('first-picture').scrollIntoView()")
        page.screenshot(path=folder / "demo-phone.jpg", quality=88, type="jpeg")


def test_downloads(browser, address):
    with opened(browser, address) as page:
        upload(page, png(60, 80))
        page.wait_for_selector("#first-picture img")
        for what in ("mask", "overlay"):
            with page.expect_download() as download:
                page.click(f"#first-get-{what}")
            assert download.value.suggested_filename == f"street-sanet-{what}.png"
            with Image.open(download.value.path()) as stored:
                assert (stored.size, stored.mode) == ((80, 60), "P" if what == "mask" else "RGB")
        page.click("#first-get-figure")
        page.get_by_text("click on a picture").wait_for()
        page.click("#first-picture img")
        status(page, "point")
        with page.expect_download() as download:
            page.click("#first-get-figure")
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
        first.get_by_text("sanet looks at street.png").first.wait_for()
        with opened(browser, address) as second, opened(browser, address) as third:
            upload(second, png(50, 50))
            second.wait_for_timeout(1500)
            upload(third, png(60, 60))
            third.get_by_text(re.compile("busy", re.IGNORECASE)).first.wait_for()
            release.set()
            status(first, "40 x 40")
            status(second, "50 x 50")


@pytest.fixture
def visits(monkeypatch):
    """Weak references to those that were opened."""
    opened, put = [], Visits.put
    monkeypatch.setattr(
        Visits, "put", lambda self, key, visit: opened.append(weakref.ref(visit)) or put(self, key, visit)
    )
    return opened


def forgotten(visits):
    gc.collect()
    return len(visits) > 0 and all(visit() is None for visit in visits)


def test_pictures_are_forgotten_in_time(browser, models, visits, tmp_path, monkeypatch):
    """Nothing of a visit is left in memory or on disk, and at the end no folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with served(models[:1], DemoConfig(port=0, keep_minutes=0.2)) as address, opened(browser, address) as page:
        upload(page, png(40, 50))
        status(page, "50 x 40")
        assert any(path.is_file() for path in tmp_path.rglob("*"))
        assert not forgotten(visits)
        wait_until(lambda: forgotten(visits) and not any(path.is_file() for path in tmp_path.rglob("*")))
        page.click("#first-picture img")
        page.get_by_text("deleted, as all are after 0.2 minutes; drop it again").first.wait_for()
        upload(page, png(40, 60))
        status(page, "60 x 40")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_pictures_are_forgotten_when_the_page_is_closed_or_cleared(browser, models, visits, monkeypatch):
    monkeypatch.setattr("sanet.demo.visits.GRACE", 0.5)
    with served(models[:1], DemoConfig(port=0, keep_minutes=60)) as address:
        with opened(browser, address) as page:
            upload(page, png(40, 50))
            status(page, "50 x 40")
            page.click("#upload button[title='Remove Image']")
            wait_until(lambda: forgotten(visits))
            page.wait_for_selector("#first-picture img", state="detached")
            assert page.locator("#first-legend input").count() == 0
            upload(page, png(40, 60))
            status(page, "60 x 40")
            assert not forgotten(visits)
        wait_until(lambda: forgotten(visits))


def test_sigterm_takes_everything_along(models, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "sanet", "demo", str(models[0]), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert "open http://127.0.0.1:" in process.stdout.readline()
        assert [path for path in tmp_path.iterdir() if path.is_dir()]
        process.terminate()
        assert process.wait(60) == 0
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_bodies_too_large_are_refused_before_they_come(address):
    host = address.removeprefix("http://").rstrip("/")
    for path, size in (("/gradio_api/upload", 2 * 10**6), ("/gradio_api/queue/join", 5 * 10**5)):
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(size))
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


def send_file(address, content, headers=None):
    """The status of an upload that no page made."""
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=20)
    given = {"Content-Type": "multipart/form-data; boundary=x", **(headers or {})}
    connection.request("POST", "/gradio_api/upload", body, given)
    status = connection.getresponse().status
    connection.close()
    return status


def ask(address, upload):
    """What the server answers to a visitor who speaks to it without the page."""
    config = json.load(urlopen(f"{address}config", timeout=20))
    first = next(entry for entry in config["dependencies"] if any("upload" in target for target in entry["targets"]))
    legend = {"rows": [], "hidden": []}
    body = {
        "data": [upload, 0.5, "attention", "sanet", legend, "fcn", legend],
        "fn_index": first["id"],
        "session_hash": "intruder",
    }
    url, kind = f"{address}gradio_api/queue", {"Content-Type": "application/json"}
    urlopen(Request(f"{url}/join", json.dumps(body).encode(), kind), timeout=20).close()
    with urlopen(f"{url}/data?session_hash=intruder", timeout=20) as events:
        messages = [json.loads(line[5:]) for line in events if line.startswith(b"data:")]
    return next(message for message in messages if message["msg"] == "process_completed")


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {"meta": {}}, {}])
def test_no_other_file_is_taken_for_an_upload(address, tmp_path, encodings, meta):
    """Nor is it told whether there is one. Gradio itself looks only at files that say that they are."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(30, 40))
    paths = [secret, tmp_path / "nothing.png", tmp_path, f"{tempfile.gettempdir()}/../{secret}"]
    answers = [ask(address, {"path": str(path), **meta}) for path in paths]
    assert not any(answer["success"] for answer in answers)
    errors = [str(answer["output"].get("error", "")) for answer in answers]
    assert len(set(errors)) == 1
    assert encodings == []


def test_other_sites_cannot_send_forms(address):
    host = address.removeprefix("http://").rstrip("/")
    for origin, expected in (("https://elsewhere.example", 403), ("null", 403), (f"http://{host}", 200), (None, 200)):
        assert send_file(address, b"abc", {"Origin": origin} if origin else {}) == expected


def test_uploads_that_nobody_looks_at_do_not_fill_the_disk(models):
    with served(models[:1], DemoConfig(port=0, largest_megabytes=0.01, visitors=1)) as address:
        answers = [send_file(address, b"%d" % index + bytes(9_000)) for index in range(8)]
    assert answers == [200] * 3 + [503] * 5


def test_no_address_is_fetched(address, monkeypatch):
    """Which a visitor might name in place of an upload."""
    from gradio import processing_utils

    asked, refuse = [], processing_utils.async_ssrf_protected_download
    assert refuse is no_fetching

    async def noted(url, *arguments, **options):
        asked.append(url)
        return await refuse(url, *arguments, **options)

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", noted)
    url = "https://example.com/street.png"
    assert not ask(address, {"path": url, "meta": {"_type": "gradio.FileData"}})["success"]
    assert asked == [url]


def test_it_listens_on_this_computer_alone_and_says_when_a_port_is_taken(address, models):
    assert address.startswith("http://127.0.0.1:")
    port = int(address.rstrip("/").rpartition(":")[2])
    with (
        pytest.raises(SanetError, match=rf"port {port} .* name another with --port"),
        served(models[:1], DemoConfig(port=port)),
    ):
        pass
    with pytest.raises(SanetError, match="--port or --host"), served(models[:1], DemoConfig("192.0.2.1", 0)):
        pass
    with (
        pytest.raises(UsageError, match=r"nothing\.png is not a file"),
        served([], DemoConfig(), [Path("nothing.png")]),
    ):
        pass
    with pytest.raises(UsageError, match="named twice"), served([models[0], models[0]], DemoConfig(port=0)):
        pass
