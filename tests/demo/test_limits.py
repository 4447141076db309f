"""Uploads: only named formats, no more pixels than allowed before any is decoded, no more bytes than allowed at all."""

import asyncio
import os
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Thread
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from sanet.demo.actions import Actions
from sanet.demo.config import DECODED, DemoConfig
from sanet.demo.limits import ENVELOPE, FORMATS, Guard, Hosts, read_upload
from sanet.demo.serve import _purge
from sanet.demo.visit import Visit
from sanet.demo.visits import Visits
from sanet.structures import UsageError

HERE = Hosts.of(DemoConfig())
WHOLE = 100 + ENVELOPE  # bytes of a body that may be an upload of 100


def finish(coroutine):
    """Its result, from a thread of its own: a browser's event loop may run in this one."""
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(asyncio.run, coroutine).result()


def png_header(width, height):
    """A PNG that says how large it is, and holds no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT")
    parts = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", FORMATS)
def test_named_formats_are_read(name, tmp_path):
    pixels = np.full((5, 7, 3), (10, 200, 90), np.uint8)
    path = tmp_path / "upload"
    Image.fromarray(pixels).save(path, name)
    found = read_upload(path, "a", tmp_path, 1)
    assert found.shape == (5, 7, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - pixels).max() <= 6


@pytest.mark.parametrize("name", ["GIF", "PPM", "ICO", "PDF", "EPS"])
def test_other_formats_are_not_even_tried(name, tmp_path):
    path = tmp_path / "upload.png"
    Image.new("RGB", (16, 16)).save(path, name)
    with pytest.raises(UsageError, match="holiday is no picture that the page reads; it takes JPEG, PNG"):
        read_upload(path, "holiday", tmp_path, 1)


def test_a_picture_too_large_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "upload"
    path.write_bytes(png_header(8000, 7000))
    with pytest.raises(UsageError, match="big is 8000 x 7000; the page takes up to 50 million pixels"):
        read_upload(path, "big", tmp_path, 50)
    # Allowed to be that large, its pixels are asked for, and they are not there.
    with pytest.raises(UsageError, match="big cannot be read as a picture"):
        read_upload(path, "big", tmp_path, 60)
    path.write_bytes(png_header(20_001, 1000))
    with pytest.raises(UsageError, match="big is 20001 x 1000; one side may be 20 times the other"):
        read_upload(path, "big", tmp_path, 60)
    path.write_bytes(png_header(60000, 60000))
    with pytest.raises(UsageError, match="decompression bomb"):
        read_upload(path, "big", tmp_path, 60)


def test_what_a_page_may_allow_pillow_decodes():
    limit = 2 * Image.MAX_IMAGE_PIXELS
    assert DECODED * 1e6 <= limit < (DECODED + 1) * 1e6


def test_text_and_halves_of_pictures_are_named_by_their_own_name(tmp_path):
    path = tmp_path / "secret-place"
    path.write_text("hello")
    with pytest.raises(UsageError, match=r"letter\.txt is no picture") as text:
        read_upload(path, "letter.txt", tmp_path, 1)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match="half cannot be read") as half:
        read_upload(path, "half", tmp_path, 1)
    assert "secret" not in f"{text.value}{half.value}"


@pytest.mark.parametrize(
    ("announced", "parts", "status"),
    [
        (b"%d" % WHOLE, [WHOLE], 200),
        (b"%d" % (WHOLE + 1), [], 413),
        (None, [60, WHOLE - 60], 200),
        (None, [60, WHOLE - 59], 413),
        (b"-5", [], 413),
    ],
)
def test_bodies_are_refused_by_what_they_say_and_by_what_they_are(announced, parts, status):
    read, sent = [], []

    async def app(scope, receive, send):
        more = bool(parts)
        while more:
            message = await receive()
            read.append(len(message["body"]))
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    messages = [
        {"type": "http.request", "body": b"x" * n, "more_body": i < len(parts) - 1} for i, n in enumerate(parts)
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost")] + ([] if announced is None else [(b"content-length", announced)])
    scope = {"type": "http", "path": "/gradio_api/upload", "headers": headers}
    finish(Guard(app, HERE, 100, "own", 1000)(scope, receive, send))
    assert sent[0]["status"] == status
    assert sum(read) <= WHOLE


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/", True),
        ("/assets/index.js", True),
        ("/gradio_api/queue/join", True),
        ("/gradio_api/file=/tmp/own/a/street.png", True),
        ("/gradio_api/file=/tmp/own/../secret.png", False),
        ("/gradio_api/file=/tmp/owned/secret.png", False),
        ("/gradio_api/file=https://host/secret.png", False),
        ("/gradio_api/file/https://host/secret.png", False),
        ("/gradio_api/proxy=https://host/", False),
        ("/gradio_api/process_recording", False),
        ("/gradio_api/deep_link", False),
        ("/docs", False),
    ],
)
def test_only_what_the_page_asks_for_is_let_through(path, known):
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"host", b"localhost:7860")]}
    finish(Guard(app, HERE, 100, "/tmp/own", 1000)(scope, None, send))
    assert sent[0]["status"] == (200 if known else 403)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:7860"}, 200),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, 200),
        ({"host": "inside:80", "x-forwarded-host": "page.example", "origin": "https://page.example"}, 200),
        ({"host": "inside:80", "x-forwarded-host": "page.example, inside", "origin": "https://page.example"}, 200),
        ({"host": "localhost:7860", "origin": "http://localhost:7861"}, 403),
        ({"host": "localhost:7860", "origin": "https://elsewhere.example"}, 403),
        ({"host": "localhost:7860", "origin": "null"}, 403),
        ({"host": "localhost", "x-forwarded-host": "other.example", "origin": "https://other.example"}, 403),
        ({"host": "localhost:7860", "x-forwarded-host": "page.example, elsewhere.example"}, 403),
        ({"host": "elsewhere.example:7860", "x-forwarded-host": "page.example"}, 403),
        ({"host": "elsewhere.example:7860", "origin": "http://elsewhere.example:7860"}, 403),
        ({}, 403),
    ],
)
def test_requests_of_other_sites_are_refused(headers, status):
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    hosts = Hosts.of(DemoConfig(allowed_hosts=("inside", "page.example")))
    for path in ("/", "/gradio_api/upload", "/gradio_api/queue/data"):
        sent.clear()
        finish(Guard(app, hosts, 100, "own", 1000)({"type": "http", "path": path, "headers": given}, None, send))
        assert sent[0]["status"] == status


@pytest.mark.parametrize(
    ("settings", "known", "unknown"),
    [
        (
            {},
            ["localhost", "LOCALHOST:7860", "127.0.0.1", "127.0.0.1:7860", "[::1]:7860", "[::1]"],
            [
                *("elsewhere.example", "elsewhere.example:7860", "127.0.0.1.elsewhere.example", "localhost.example"),
                *("192.168.1.5:7860", "0.0.0.0:7860", "desk", "127.0.0.2", "[::2]", "::1", "page.example"),
                *("", ":7860", "localhost:", "localhost:x", "localhost/x", "x@localhost", "localhost x", "[::1"),
            ],
        ),
        ({"host": "localhost"}, ["localhost:7860", "127.0.0.1:7860"], ["elsewhere.example", "desk"]),
        ({"host": "::1"}, ["[::1]:7860", "localhost:7860"], ["elsewhere.example"]),
        (
            {"host": "192.168.1.5"},
            ["192.168.1.5:7860", "desk:7860"],
            ["localhost:7860", "192.168.1.6", "elsewhere.example"],
        ),
        ({"host": "Box.lan"}, ["box.lan:7860", "BOX.LAN"], ["lan", "elsewhere.example"]),
        (
            {"host": "0.0.0.0"},
            ["192.168.1.5:7860", "[fe80::1]:7860", "localhost", "desk", "Desk:7860", "desk.local"],
            ["elsewhere.example:7860", "192.168.1.5.elsewhere.example", "0x7f000001"],
        ),
        ({"host": "::"}, ["192.168.1.5:7860", "[::1]:7860"], ["elsewhere.example"]),
        (
            {"allowed_hosts": ("Page.example", "other.example:8443")},
            ["page.example", "page.example:443", "other.example:8443", "localhost:7860"],
            ["other.example", "other.example:443", "a.page.example"],
        ),
    ],
)
def test_the_page_answers_to_its_own_names_alone(settings, known, unknown, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk")
    hosts = Hosts.of(DemoConfig(**settings))
    assert [name for name in known if not hosts.know(name.encode())] == []
    assert [name for name in unknown if hosts.know(name.encode())] == []


@pytest.mark.parametrize("headers", [[b"localhost"], [b"elsewhere.example"], [b"localhost", b"elsewhere.example"]])
def test_no_socket_is_opened_and_no_second_name_is_passed(headers):
    sent = []

    async def app(scope, receive, send):
        raise AssertionError

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/gradio_api/queue/join", "headers": [(b"host", name) for name in headers]}
    finish(Guard(app, HERE, 100, "own", 1000)(scope, None, send))
    assert sent[0]["status"] == 403
    if len(headers) == 2:
        finish(Guard(app, HERE, 100, "own", 1000)({**scope, "type": "http", "path": "/"}, None, send))
        assert sent[-2]["status"] == 403


def test_old_files_and_folders_go_and_the_deleting_outlives_what_others_delete(tmp_path):
    """Visits come and go all the time while the page deletes: on some walks a folder is gone once it is its turn."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "example.jpg").write_bytes(b"x")
    visits, ended = Visits(2, 0.4), Event()
    sessions = SimpleNamespace(lock=Lock(), session_data={"gone": 1}, time_last_used={"gone": 1})
    purger = Thread(target=_purge, args=(tmp_path, visits, sessions, ended), daemon=True)
    purger.start()
    try:
        time.sleep(0.05)
        for index in range(300):
            visits.put(str(index % 3), Visit(np.zeros((4, 4, 3), np.uint8), "a", str(tmp_path)))
            folder = tmp_path / f"upload{index}" / "deep"
            folder.mkdir(parents=True)
            (folder / "street.png").write_bytes(b"x")
        end = time.monotonic() + 30
        while len(list(os.walk(tmp_path))) > 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert purger.is_alive()
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]
        assert (tmp_path / "kept" / "example.jpg").is_file()
        assert sessions.session_data == sessions.time_last_used == {}
    finally:
        ended.set()
        purger.join()


def test_a_visitors_file_name_is_no_html_in_an_error_and_says_nothing_to_the_terminal(tmp_path):
    """Gradio shows errors as HTML, and prints them where the page is served unless told otherwise."""
    (tmp_path / "upload").write_text("no picture")
    actions = Actions({}, Visits(2, 60), 1, str(tmp_path))
    payload = {"path": str(tmp_path / "upload"), "orig_name": "<img src=x onerror=alert(1)>\x1b]0;x\x07.png"}
    with pytest.raises(gr.Error) as caught:
        actions.arrive(payload, SimpleNamespace(session_hash="a"), None)
    assert caught.value.message.startswith("&lt;img src=x onerror=alert(1)&gt;\\x1b]0;x\\x07.png is no picture")
    assert not caught.value.print_exception
