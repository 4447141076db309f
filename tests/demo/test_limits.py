"""Uploads: only named formats, no more pixels than allowed before any is decoded, no more bytes than allowed at all."""

import asyncio
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sanet.demo.limits import FORMATS, Guard, read_upload
from sanet.structures import UsageError


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
    found = read_upload(path, "a", 1)
    assert found.shape == (5, 7, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - pixels).max() <= 6


@pytest.mark.parametrize("name", ["GIF", "PPM", "ICO", "PDF", "EPS"])
def test_other_formats_are_not_even_tried(name, tmp_path):
    path = tmp_path / "upload.png"
    Image.new("RGB", (16, 16)).save(path, name)
    with pytest.raises(UsageError, match="holiday is no picture that the page reads; it takes JPEG, PNG"):
        read_upload(path, "holiday", 1)


def test_a_picture_too_large_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "upload"
    path.write_bytes(png_header(8000, 7000))
    with pytest.raises(UsageError, match="big is 8000 x 7000; the page takes up to 50 million pixels"):
        read_upload(path, "big", 50)
    # Allowed to be that large, its pixels are asked for, and they are not there.
    with pytest.raises(UsageError, match="big cannot be read as a picture"):
        read_upload(path, "big", 60)
    path.write_bytes(png_header(20_001, 1000))
    with pytest.raises(UsageError, match="big is 20001 x 1000; one side may be 20 times the other"):
        read_upload(path, "big", 60)
    path.write_bytes(png_header(60000, 60000))
    with pytest.raises(UsageError, match="decompression bomb"):
        read_upload(path, "big", 60)


def test_text_and_halves_of_pictures_are_named_by_their_own_name(tmp_path):
    path = tmp_path / "secret-place"
    path.write_text("hello")
    with pytest.raises(UsageError, match=r"letter\.txt is no picture") as text:
        read_upload(path, "letter.txt", 1)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match="half cannot be read") as half:
        read_upload(path, "half", 1)
    assert "secret" not in f"{text.value}{half.value}"


@pytest.mark.parametrize(
    ("announced", "parts", "status"),
    [(b"100", [100], 200), (b"101", [], 413), (None, [60, 40], 200), (None, [60, 41], 413), (b"-5", [], 413)],
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

    headers = [] if announced is None else [(b"content-length", announced)]
    scope = {"type": "http", "path": "/gradio_api/upload", "headers": headers}
    asyncio.run(Guard(app, 100, "/tmp/own")(scope, receive, send))
    assert sent[0]["status"] == status
    assert sum(read) <= 100


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

    scope = {"type": "http", "path": path, "headers": []}
    asyncio.run(Guard(app, 100, "/tmp/own")(scope, None, send))
    assert sent[0]["status"] == (200 if known else 403)
