"""The page in a real browser: what a visitor does, what a careless or a malicious one does, and many at once."""

import base64
import io
import os
import re
import shutil
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from visitor import open_visits, png, wait_until

import sanet
from sanet.demo.config import DemoConfig
from sanet.demo.serve import served
from sanet.insight.groups import Explainer
from sanet.structures import LabelSet

pytestmark = pytest.mark.slow
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60_000
EXAMPLE = ".gallery-item"


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


def upload(page, content, name="street.png"):
    page.set_input_files("#upload input[type=file]", {"name": name, "mimeType": "image/png", "buffer": content})


def pixels(page, selector):
    """What an image on the page shows, (H, W, 3)."""
    url = page.get_attribute(selector, "src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(url).body())).convert("RGB")).astype(int)


def settled(locator):
    """Where it stands once the page has ceased to move it: a page is laid out again while its parts arrive."""
    boxes = [None, locator.bounding_box()]

    def stands():
        locator.page.wait_for_timeout(500)
        boxes.append(locator.bounding_box())
        return boxes[-2] == boxes[-1] is not None

    wait_until(stands)
    return boxes[-1]


def status(page, text, pane="first", timeout=60_000):
    found = "([pane, text]) => document.getElementById(`${pane}-status`)?.innerText.includes(text)"
    page.wait_for_function(found, arg=[pane, text], timeout=timeout)


def repeated(page, act, text):
    """Act again where the page, which says something before it is ready for more, did not take notice."""
    from playwright.sync_api import TimeoutError

    for _ in range(3):
        act()
        with suppress(TimeoutError):
            return status(page, text, timeout=10_000)
    act()
    status(page, text)


def test_a_visit(browser, address, models, encodings):
    """Upload, overlay, two clicks, class switch, second model: the image is encoded once by each."""
    with opened(browser, address) as page:
        upload(page, png(60, 80))
        status(page, "80 x 60 pixels")
        shown = page.locator("#first-image img")
        shown.wait_for()
        assert encodings == [(60, 80)]
        tinted = pixels(page, "#first-image img")
        assert tinted.shape == (720, 960, 3)

        box = settled(shown)
        page.click("#first-image img", position={"x": box["width"] / 4, "y": box["height"] / 2})
        page.wait_for_selector("#first-groups figure")
        status(page, "point 2")
        prediction = sanet.Predictor(models[0])(np.asarray(Image.open(io.BytesIO(png(60, 80)))))
        x, y = map(int, re.search(r"point (\d+), (\d+)", page.inner_text("#first-status")).groups())
        assert page.inner_text("#first-status b") == prediction.labels.names[prediction[y, x]]
        shown = float(re.search(r"([\d.]+)%", page.inner_text("#first-status p"))[1])
        assert shown == pytest.approx(100 * prediction.confidence[y, x], abs=0.1)
        assert page.locator("#first-groups figure").count() == 4
        first = page.get_attribute("#first-groups img", "src")
        page.click("#first-image img", position={"x": box["width"] * 3 / 4, "y": box["height"] / 2})
        status(page, "point 6")
        page.wait_for_function("old => document.querySelector('#first-groups img').src != old", arg=first)
        for channel in ("main", "output", "attention"):
            last = page.get_attribute("#first-groups img", "src")
            page.click(f"#channel input[value={channel}]")
            page.wait_for_function("old => document.querySelector('#first-groups img').src != old", arg=last)
        assert encodings == [(60, 80)]

        # Every class hidden, the image itself is left, but for what JPEG and the point cost.
        original = np.asarray(
            Image.open(io.BytesIO(png(60, 80))).resize((960, 720), Image.Resampling.BILINEAR), dtype=int
        )
        away = np.abs(tinted - original).mean()
        for index in range(page.locator("#first-legend input").count()):
            page.click(f"#first-legend input >> nth={index}")
        wait_until(lambda: np.abs(pixels(page, "#first-image img") - original).mean() < away / 3)

        page.click("#other input")
        page.get_by_role("option", name="fcn").click()
        page.wait_for_selector("#second-groups figure")
        assert encodings == [(60, 80)] * 2


def test_a_page_without_an_image_says_what_its_models_know(browser, address, models):
    """Of one model, and of both; an example is there to click on, and nothing that needs an image."""
    with opened(browser, address) as page:
        names = sanet.load_model(models[0]).labels.names
        assert page.locator("#first-legend .name").all_inner_texts() == list(names)
        assert page.locator(EXAMPLE).first.is_visible()
        needed = ("#first-image", "#first-get-mask", "#layer", "#brushed", "#second-legend")
        assert not any(page.locator(selector).is_visible() for selector in needed)
        page.click("#other input")
        page.get_by_role("option", name="fcn").click()
        page.locator("#second-legend .name").first.wait_for()
        assert page.locator("#second-legend .name").all_inner_texts() == list(names)


def test_the_controls_are_beside_the_image_or_below_it(browser, address):
    with opened(browser, address) as page:
        upload(page, png(60, 80))
        status(page, "80 x 60 pixels")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            page.wait_for_timeout(500)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            names = ("first-image", "layer", "model")
            image, *controls = (page.locator(f"#{name}").bounding_box() for name in names)
            assert image["x"] >= 0
            assert image["x"] + image["width"] <= width
            for control in controls:
                if width == 390:
                    assert control["y"] >= image["y"] + image["height"]
                else:
                    assert control["x"] + control["width"] <= image["x"]
                    assert control["y"] < image["y"] + image["height"]


def test_a_heat_map_grows_and_layers_change(browser, address):
    with opened(browser, address) as page:
        upload(page, png(60, 80))
        status(page, "80 x 60 pixels")
        page.click("#first-image img")
        figures = page.locator("#first-groups figure")
        figures.nth(3).wait_for()
        small = settled(figures.nth(2))["width"]
        figures.nth(2).locator("img").click()
        wait_until(lambda: figures.nth(2).bounding_box()["width"] > 3 * small)
        # And stays so when another point is chosen.
        page.click("#first-image img", position={"x": 20, "y": 20})
        status(page, "point 1, 1")
        assert figures.nth(2).bounding_box()["width"] > 3 * small
        figures.nth(2).locator("img").click()
        wait_until(lambda: figures.nth(2).bounding_box()["width"] == pytest.approx(small, abs=2))

        original = np.asarray(Image.open(io.BytesIO(png(60, 80))).resize((960, 720), Image.Resampling.BILINEAR), int)
        page.click("#layer input[value=image]")
        wait_until(lambda: np.abs(pixels(page, "#first-image img") - original).mean() < 10)
        page.click("#layer input[value=confidence]")
        grey = original.mean(axis=2)
        # Of one confidence everywhere, as an untrained network has it: half of it grey, half one colour.
        wait_until(lambda: np.ptp((pixels(page, "#first-image img") - grey[..., None] / 2).mean(axis=(0, 1))) > 20)


def test_a_brushed_region_is_compared_with_each_model(browser, address, models):
    """A ring around the left half, drawn with a mouse; the same region for both; a click does not choose a point."""
    with opened(browser, address) as page:
        upload(page, png(60, 80))
        status(page, "80 x 60 pixels")
        page.click("#other input")
        page.get_by_role("option", name="fcn").click()
        status(page, "80 x 60 pixels", "second")
        mask = sanet.Predictor(models[0])(np.asarray(Image.open(io.BytesIO(png(60, 80))))).mask
        name = sanet.load_model(models[0]).labels.names[np.bincount(mask.flat).argmax()]
        page.click("#brushed input")
        page.get_by_role("option", name=name).click()
        page.wait_for_selector("#brush .on")
        page.locator("#second-image img").scroll_into_view_if_needed()
        box = settled(page.locator("#second-image img"))
        for step, (x, y) in enumerate([(0, 0), (0.5, 0), (0.5, 1), (0, 1), (0, 0)]):
            place = (box["x"] + 1 + x * (box["width"] - 2), box["y"] + 1 + y * (box["height"] - 2))
            page.mouse.move(*place, steps=5)
            if not step:
                page.mouse.down()
        page.mouse.up()
        for pane, path in zip(("first", "second"), models, strict=True):
            status(page, "IoU", pane)
            found = sanet.Predictor(path)(np.asarray(Image.open(io.BytesIO(png(60, 80))))) == name_index(path, name)
            left = np.arange(80)[None].repeat(60, 0) < 40
            expected = (found & left).sum() / (found | left).sum()
            shown = float(re.search(r"IoU (\d\.\d+)", page.inner_text(f"#{pane}-status"))[1])
            assert shown == pytest.approx(expected, abs=0.03)
            assert "point" not in page.inner_text(f"#{pane}-status")
        wait_until(lambda: page.locator("canvas").count() == 0)
        page.click("#again")
        page.wait_for_function("!document.getElementById('first-status').innerText.includes('IoU')")


def name_index(path, name):
    return sanet.load_model(path).labels.names.index(name)


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
    model = tmp_path / "<img src=x onerror=window.hit=1>${window.hit=1}"
    network.save_pretrained(model)
    with served([model], DemoConfig(port=0)) as address, opened(browser, address) as page:
        upload(page, b"none", "<img src=x onerror=window.hit=1>.png")
        page.wait_for_selector(".toast-body")
        assert "<img src=x onerror=window.hit=1>.png is not an image" in page.inner_text(".toast-body")
        upload(page, png(64, 64), "<img src=x onerror=window.hit=1>.png")
        page.wait_for_selector("#first-legend .name")
        shown = page.locator("#first-legend .name").all_inner_texts()
        assert sorted(shown) == sorted(names)
        pixel = settled(page.locator("#first-image img"))["width"] / 64
        for step in range(len(names)):
            page.click("#first-image img", position={"x": (step + 0.5) * pixel, "y": 60.5 * pixel})
            status(page, f"point {step}, ")
            assert page.inner_text("#first-status b") == names[(60 * 64 + step) % len(names)]
        page.wait_for_timeout(300)
        assert page.evaluate("window.hit") is None
        assert page.locator("img[src=x]").count() == 0


def test_a_hidden_class_stays_hidden_where_another_image_lists_it_elsewhere(browser, models, monkeypatch):
    encode = Explainer.encode

    def halves(self, image):
        # As many columns of the first class as the image has rows.
        second = (torch.arange(80) >= image.shape[1]).long()
        return encode(self, image)._replace(prediction=second.expand(image.shape[1:]))

    monkeypatch.setattr(Explainer, "encode", halves)
    with served(models[:1], DemoConfig(port=0)) as address, opened(browser, address) as page:
        boxes = page.locator("#first-legend input")
        for height, checked in ((60, [True, True]), (32, [True, False])):
            upload(page, png(height, 80))
            status(page, f"80 x {height} pixels")
            wait_until(lambda checked=checked: [box.is_checked() for box in boxes.all()] == checked)
            boxes.first.set_checked(False)


def test_an_image_that_is_dropped(browser, address, encodings):
    with opened(browser, address) as page:
        content = base64.b64encode(png(60, 80)).decode()
        dropped = page.evaluate_handle(
            f"content => {{ const data = new DataTransfer(); data.items.add({FILE}); return data }}", content
        )
        page.dispatch_event("#upload button:has(input[type=file])", "drop", {"dataTransfer": dropped})
        status(page, "80 x 60 pixels")
    assert encodings == [(60, 80)]


def test_images_that_are_pasted(browser, address, encodings):
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
            repeated(page, paste, f"80 x {height} pixels")
    assert list(dict.fromkeys(encodings)) == [(60, 80), (50, 80), (40, 80)]


def test_the_bundled_model_on_a_street(browser, tmp_path):
    """The images that the documentation shows; they are kept where SANET_SCREENSHOTS says."""
    folder = Path(os.environ.get("SANET_SCREENSHOTS", tmp_path))
    with served([], DemoConfig(port=0)) as address, opened(browser, address) as page:
        page.set_viewport_size({"width": 1280, "height": 1000})
        page.click(f"{EXAMPLE} >> nth=-1")
        status(page, "480 x 360 pixels")
        legend = page.inner_text("#first-legend")
        assert all(name in legend for name in ("road", "building", "sky"))
        box = settled(page.locator("#first-image img"))
        page.click("#first-image img", position={"x": 0.6 * box["width"], "y": 0.75 * box["height"]})
        page.wait_for_function("document.querySelectorAll('#first-groups img').length == 4")
        page.wait_for_timeout(500)
        assert not page.get_by_text("Download", exact=True).first.is_visible()
        page.screenshot(path=folder / "demo.jpg", quality=88, type="jpeg", full_page=True)
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.evaluate("document.getElementById('first-image').scrollIntoView()")
        page.screenshot(path=folder / "demo-phone.jpg", quality=88, type="jpeg")


def test_downloads(browser, address):
    with opened(browser, address) as page:
        upload(page, png(60, 80))
        page.wait_for_selector("#first-image img")
        for what in ("mask", "overlay"):
            with page.expect_download() as download:
                page.click(f"#first-get-{what}")
            assert download.value.suggested_filename == f"street-sanet-{what}.png"
            with Image.open(download.value.path()) as stored:
                assert (stored.size, stored.mode) == ((80, 60), "P" if what == "mask" else "RGB")
        page.click("#first-get-figure")
        page.get_by_text("click on an image").wait_for()
        page.click("#first-image img")
        status(page, "point")
        with page.expect_download() as download:
            page.click("#first-get-figure")
        assert Image.open(download.value.path()).width > 600


def test_what_is_no_image_or_too_large_is_told_why(browser, address, encodings):
    with opened(browser, address) as page:
        upload(page, b"hello, this is a letter", "letter.png")
        page.get_by_text("letter.png is not an image").wait_for()
        upload(page, png(10, 10)[:60], "half.png")
        page.get_by_text("half.png cannot be read").wait_for()
        upload(page, png(1, 1) + bytes(1_100_000), "heavy.png")
        page.get_by_text("exceeds the maximum").or_(page.get_by_text("maximum allowed size")).first.wait_for()
        blank = io.BytesIO()
        Image.new("L", (1000, 600)).save(blank, "PNG")
        upload(page, blank.getvalue(), "wide.png")
        page.get_by_text("wide.png is 1000 x 600; the limit is 0.5 million pixels").wait_for()
        # And after all that it still works.
        upload(page, png(40, 50))
        status(page, "50 x 40 pixels")
    assert encodings == [(40, 50)]


def test_ten_visitors_at_once_get_their_own_images(browser, address, encodings):
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
        first.get_by_text("sanet labels street.png").first.wait_for()
        with opened(browser, address) as second, opened(browser, address) as third:
            upload(second, png(50, 50))
            second.wait_for_timeout(1500)
            upload(third, png(60, 60))
            third.get_by_text(re.compile("busy", re.IGNORECASE)).first.wait_for()
            release.set()
            status(first, "40 x 40")
            status(second, "50 x 50")


def test_images_are_forgotten_when_the_page_is_closed_or_cleared(browser, models):
    before = len(open_visits())
    with served(models[:1], DemoConfig(port=0, keep_minutes=60)) as address:
        with opened(browser, address) as page:
            upload(page, png(40, 50))
            status(page, "50 x 40")
            assert len(open_visits()) == before + 1
            page.click("#upload button[title='Remove Image']")
            wait_until(lambda: len(open_visits()) == before)
            page.wait_for_selector("#first-image img", state="detached")
            assert page.locator("#first-legend input:enabled").count() == 0
            upload(page, png(40, 60))
            status(page, "60 x 40")
            assert len(open_visits()) == before + 1
        wait_until(lambda: len(open_visits()) == before)


def test_an_image_that_is_forgotten_can_be_dropped_again(browser, models):
    with served(models[:1], DemoConfig(port=0, keep_minutes=0.1)) as address, opened(browser, address) as page:
        upload(page, png(40, 50))
        status(page, "50 x 40")
        page.wait_for_timeout(9_000)
        page.click("#first-image img")
        page.get_by_text("drop it again").first.wait_for()
        upload(page, png(40, 60))
        status(page, "60 x 40")
