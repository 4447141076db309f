"""Uploads of named formats, with no more pixels than allowed before any is decoded; requests under own names alone."""

import asyncio
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sanet.demo.config import DECODED, DemoConfig
from sanet.demo.visit import read_upload
from sanet.serve.limits import FORMATS, OwnHostsOnly
from sanet.structures import UsageError


def png_header(width, height):
    """A PNG that says how large it is, and holds no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT")
    parts = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", FORMATS)
def test_named_formats_are_read(name, tmp_path):
    pixels = np.full((5, 7, 3), (10, 200, 90), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "upload", name)
    found = read_upload(tmp_path / "upload", "a", tmp_path, 1)
    assert (found.shape, found.dtype) == ((5, 7, 3), np.uint8)
    assert np.abs(found.astype(int) - pixels).max() <= 6


@pytest.mark.parametrize("name", ["GIF", "PPM", "EPS"])
def test_other_formats_are_not_even_tried(name, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "upload.png", name)
    with pytest.raises(UsageError, match=r"holiday.*JPEG, PNG"):
        read_upload(tmp_path / "upload.png", "holiday", tmp_path, 1)


@pytest.mark.parametrize(
    ("width", "height", "limit", "message"),
    [
        (8000, 7000, 50, "big is 8000 x 7000"),
        (8000, 7000, 60, "big cannot be read"),  # its pixels are asked for, and they are not there
        (20_001, 1000, 60, "20 times"),
        (60_000, 60_000, 60, "bomb"),
    ],
)
def test_an_image_too_large_is_refused_before_it_is_decoded(width, height, limit, message, tmp_path):
    (tmp_path / "upload").write_bytes(png_header(width, height))
    with pytest.raises(UsageError, match=message):
        read_upload(tmp_path / "upload", "big", tmp_path, limit)


def test_what_a_page_may_allow_pillow_decodes():
    limit = 2 * Image.MAX_IMAGE_PIXELS
    assert DECODED * 1e6 <= limit < (DECODED + 1) * 1e6


def test_errors_name_the_file_as_the_visitor_does(tmp_path):
    path = tmp_path / "secret-place"
    path.write_text("hello")
    with pytest.raises(UsageError, match=r"letter\.txt") as text:
        read_upload(path, "letter.txt", tmp_path, 1)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match="half") as half:
        read_upload(path, "half", tmp_path, 1)
    assert "secret" not in f"{text.value}{half.value}"


def test_only_uploads_are_opened(tmp_path):
    (tmp_path / "uploads").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "secret.png")
    places = (tmp_path / "secret.png", tmp_path / "uploads" / ".." / "secret.png", tmp_path / "nothing.png", tmp_path)
    answers = set()
    for place in places:
        with pytest.raises(UsageError) as refused:
            read_upload(place, "a", tmp_path / "uploads", 1)
        answers.add(str(refused.value))
    assert len(answers) == 1


def status_of(headers, config, scope="http"):
    """What the middleware answers; 200 if it passes a request on."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    given = {"type": scope, "path": "/", "headers": [(name.encode(), value.encode()) for name, value in headers]}
    asyncio.new_event_loop().run_until_complete(OwnHostsOnly(app, config.host, config.allowed_hosts)(given, None, send))
    return sent[0]["status"]


PROXY = ("host", "inside:80")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("host", "localhost:7860")], 200),
        ([("host", "127.0.0.1:7860"), ("origin", "http://127.0.0.1:7860")], 200),
        ([PROXY, ("x-forwarded-host", "page.example, inside"), ("origin", "https://page.example")], 200),
        ([("host", "localhost:7860"), ("origin", "http://localhost:7861")], 403),
        ([("host", "localhost:7860"), ("origin", "https://elsewhere.example")], 403),
        ([("host", "localhost:7860"), ("origin", "null")], 403),
        ([("host", "localhost"), ("x-forwarded-host", "other.example"), ("origin", "https://other.example")], 403),
        ([("host", "localhost:7860"), ("x-forwarded-host", "page.example, elsewhere.example")], 403),
        ([("host", "elsewhere.example:7860"), ("x-forwarded-host", "page.example")], 403),
        ([("host", "elsewhere.example:7860"), ("origin", "http://elsewhere.example:7860")], 403),
        ([("host", "localhost"), ("host", "elsewhere.example")], 403),
        ([], 403),
    ],
)
def test_requests_of_other_sites_are_refused(headers, status):
    config = DemoConfig(allowed_hosts=("inside", "page.example"))
    assert {status_of(headers, config, scope) for scope in ("http", "websocket")} == {status}


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
        ({"host": "::1"}, ["[::1]:7860", "localhost:7860"], ["elsewhere.example"]),
        ({"host": "192.168.1.5"}, ["192.168.1.5:7860", "desk:7860"], ["localhost:7860", "192.168.1.6"]),
        ({"host": "Box.lan"}, ["box.lan:7860", "BOX.LAN"], ["lan", "elsewhere.example"]),
        (
            {"host": "0.0.0.0"},
            ["192.168.1.5:7860", "[fe80::1]:7860", "localhost", "desk", "Desk:7860", "desk.local"],
            ["elsewhere.example:7860", "192.168.1.5.elsewhere.example", "0x7f000001"],
        ),
        (
            {"allowed_hosts": ("Page.example", "other.example:8443")},
            ["page.example", "page.example:443", "other.example:8443", "localhost:7860"],
            ["other.example", "other.example:443", "a.page.example"],
        ),
    ],
)
def test_the_page_answers_to_its_own_names_alone(settings, known, unknown, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk")
    config = DemoConfig(**settings)
    assert [name for name in known if status_of([("host", name)], config) != 200] == []
    assert [name for name in unknown if status_of([("host", name)], config) != 403] == []
