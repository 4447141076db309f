"""The server of the page, as a careless or a malicious visitor speaks to it, without a browser."""

import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import metadata
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from visitor import Visitor, file_data, open_visits, png, wait_until

from sanet.demo.actions import NO_LEGEND, Actions
from sanet.demo.config import DemoConfig
from sanet.demo.page import NO_OTHER
from sanet.demo.serve import served
from sanet.demo.visit import Visit
from sanet.insight.groups import Explainer
from sanet.structures import SanetError, UsageError


def test_a_visit_is_the_visitors_own(address, encodings):
    mine, other = Visitor(address, "mine"), Visitor(address, "other")
    answer, path = mine.upload(png(60, 80))
    assert answer["success"]
    assert encodings == [(60, 80)] * 2  # of both models
    assert mine.click()["success"]
    assert "no image" in other.click()["output"]["error"]
    assert png(60, 80) not in b"".join(other.get(path)[1] for path in ("/", "/config"))
    # A path cannot be guessed: it has the hash of the content in it.
    folder = Path(path).parent.parent
    assert len(Path(path).parent.name) == 64
    assert {other.get(f"/gradio_api/file={place}")[0] for place in (folder, f"{folder}/a.png")} <= {403, 404}


def test_no_other_file_is_taken_for_an_upload(address, tmp_path, encodings):
    """Nor does the answer tell whether there is one."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(30, 40))
    visitor = Visitor(address, "intruder")
    paths = [secret, tmp_path / "nothing.png", tmp_path, f"{tempfile.gettempdir()}/../{secret}"]
    for given in (file_data, lambda path: {"path": str(path)}):
        answers = [visitor.event("upload", given(path)) for path in paths]
        assert not any(answer["success"] for answer in answers)
        assert len({str(answer["output"].get("error", "")) for answer in answers}) == 1
    assert encodings == []


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "/proc/self/environ", "../../etc/passwd"])
def test_no_other_file_is_served(address, path):
    assert Visitor(address, "intruder").get(f"/gradio_api/file={path}")[0] in {403, 404}


def test_uploads_are_limited(address):
    visitor = Visitor(address, "large")
    assert visitor.post(bytes(900_000))[0] == 200
    assert visitor.post(bytes(1_100_000))[0] == 413


def test_other_sites_are_refused(address):
    visitor = Visitor(address, "elsewhere")
    for headers, expected in (
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "elsewhere.example"}, 403),
        ({"Origin": f"http://{visitor.host}"}, 200),
        ({}, 200),
    ):
        assert visitor.post(b"abc", headers)[0] == expected


def test_it_listens_on_this_computer_alone_and_says_when_a_port_is_taken(address, models):
    assert DemoConfig().host == "127.0.0.1"
    assert address.startswith("http://127.0.0.1:")
    port = int(address.rstrip("/").rpartition(":")[2])
    for config, message in ((DemoConfig(port=port), f"port {port} .*--port"), (DemoConfig("192.0.2.1", 0), "--host")):
        with pytest.raises(SanetError, match=message), served(models[:1], config):
            pass
    for named, examples, message in (([], [Path("nothing.png")], r"nothing\.png"), (models[:1] * 2, [], "twice")):
        with pytest.raises(UsageError, match=message), served(named, DemoConfig(port=0), examples):
            pass


@pytest.mark.slow
def test_nothing_is_kept_for_longer_than_promised_or_after_the_end(models, tmp_path, tmp_path_factory, monkeypatch):
    """In memory, on disk, and in the environment; examples stay as long as the page."""
    example = tmp_path_factory.mktemp("examples") / "corner.png"
    example.write_bytes(png(30, 90))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, variables = len(open_visits()), dict(os.environ)

    def files():
        return {path.name for path in tmp_path.rglob("*") if path.is_file()}

    with served(models[:1], DemoConfig(port=0, keep_minutes=0.05), [example]) as address:
        assert files() == {"corner.png"}
        visitor = Visitor(address, "mine", NO_OTHER)
        assert visitor.upload(png(40, 50))[0]["success"]
        assert len(files()) > 1
        assert len(open_visits()) == before + 1
        wait_until(lambda: len(open_visits()) == before and files() == {"corner.png"}, 20)
        assert "no image" in visitor.click()["output"]["error"]
        assert visitor.upload(png(40, 50))[0]["success"]
    assert [*tmp_path.iterdir()] == []
    assert dict(os.environ) == variables


def test_a_visitor_who_leaves_is_forgotten(models, tmp_path):
    actions = Actions({}, DemoConfig(), str(tmp_path))
    (tmp_path / "upload.png").write_bytes(png(40, 50))
    settings = (0.5, "mask", "attention", NO_OTHER, "none", NO_LEGEND, NO_OTHER, NO_LEGEND)
    request = SimpleNamespace(session_hash="a")
    visit, *_ = actions.upload({"path": str(tmp_path / "upload.png")}, request, gr.Progress(), *settings)
    actions.leave(SimpleNamespace(session_hash="b"))
    assert visit.image.shape == (40, 50, 3)
    actions.leave(request)
    assert visit.image.size == 0
    assert [path.name for path in tmp_path.iterdir()] == ["upload.png"]
    with pytest.raises(gr.Error, match="no image"):
        actions.view(visit, gr.Progress(), *settings)


@pytest.mark.parametrize(
    "brush",
    [
        *(
            {},
            {"on": True},
            {"stroke": None},
            {"stroke": "abc"},
            {"stroke": []},
            {"stroke": [[]]},
            {"stroke": [0.5, 0.5]},
        ),
        *({"stroke": [[0.5]]}, {"stroke": [[0, 1], [1]]}, {"stroke": [[0.5, 1.5]]}, {"stroke": [[-1, 0]]}, None, [1]),
        *({"stroke": [[float("nan"), 0]]}, {"stroke": [[10**400, 0]]}, {"stroke": [[0.5, 0.5]] * 5001}),
    ],
)
def test_what_is_no_stroke_is_refused(brush, tmp_path):
    visit = Visit(np.zeros((40, 50, 3), np.uint8), "a", str(tmp_path))
    actions, settings = Actions({}, DemoConfig(), str(tmp_path)), ("mask", "attention", NO_OTHER, "none")
    with pytest.raises(gr.Error) as refused:
        actions.brush(visit, brush, 0.5, *settings, NO_LEGEND, NO_OTHER, NO_LEGEND)
    assert not refused.value.print_exception
    assert not visit.truth.any()


def test_a_brushed_region_is_its_visitors_own(models, tmp_path):
    """It stays until another class is brushed, and is gone with the image."""
    explainers = {"sanet": Explainer(models[0], "cpu")}
    actions = Actions(explainers, DemoConfig(), str(tmp_path))
    first, second = (Visit(np.zeros((40, 50, 3), np.uint8), "a", str(tmp_path)) for _ in range(2))
    result = first.result("sanet", explainers)
    name = next(iter(result.shares))
    settings = (0.5, "mask", "attention", name, "sanet", NO_LEGEND, NO_OTHER, NO_LEGEND)
    half = {"on": True, "stroke": [[0, 0], [0.5, 0], [0.5, 1], [0, 1], [0, 0]]}

    def brushed(values):
        return [row for value in values if isinstance(value, dict) and "text" in value for row in value["rows"]]

    assert brushed(actions.redraw(first, *settings)) == []
    (row,) = brushed(actions.brush(first, half, *settings))
    assert row["name"] == name
    found = result.shown == result.encoding.labels.names.index(name)
    left = np.arange(found.shape[1])[None] < found.shape[1] / 2
    expected = (found & left).sum() / (found | left).sum()
    assert float(re.search(r"\d\.\d+", row["share"])[0]) == pytest.approx(expected, abs=0.02)
    assert brushed(actions.redraw(second, *settings)) == []
    assert brushed(actions.unbrush(first, *settings)) == []


def test_the_page_links_to_what_the_package_names(address):
    """The paper, and the addresses of the package's metadata; nothing is loaded from any of them."""
    _, page = Visitor(address, "links").get("/config")
    linked = {*re.findall(r"\]\((https?://[^)]+)\)", page.decode())}
    urls = metadata("sanet-segmentation").get_all("Project-URL", [])
    assert linked == {"https://arxiv.org/abs/1909.03402", *(url.split(", ", 1)[1] for url in urls)}


def test_a_visitors_file_name_is_no_html_in_an_error_and_is_not_printed(tmp_path):
    """Gradio shows errors as HTML, and prints them where the page is served unless told otherwise."""
    (tmp_path / "upload").write_text("no image")
    payload = {"path": str(tmp_path / "upload"), "orig_name": "<img src=x onerror=alert(1)>\x1b]0;x\x07.png"}
    with pytest.raises(gr.Error) as caught:
        Actions({}, DemoConfig(), str(tmp_path)).upload(payload, SimpleNamespace(session_hash="a"), None)
    assert caught.value.message.startswith("&lt;img src=x onerror=alert(1)&gt;\\x1b]0;x\\x07.png")
    assert not caught.value.print_exception


@pytest.mark.slow
def test_sigterm_takes_everything_along(models, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "sanet", "demo", str(models[0]), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert "open http://127.0.0.1:" in process.stdout.readline()
        assert [path for path in tmp_path.iterdir() if path.is_dir()]
        process.terminate()
        assert process.wait(60) == 0
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
