"""What the tests of a served model share: images, a process, and somebody who calls it over plain HTTP."""

import http.client
import socket
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from io import BytesIO
from itertools import islice

import numpy as np
from PIL import Image

# As the command, but for how long it waits for a head.
COMMAND = """
import sys
from sanet.cli.main import main
from sanet.serve import server
server.HEAD = 2
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def png(height, width, seed=0, kind="PNG"):
    """The file of an image, of coarse noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    stream = BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST).save(stream, kind)
    return stream.getvalue()


def png_header(width, height):
    """A PNG that says how large it is, and holds no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT")
    parts = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def mask_in(content):
    """The indices (H, W) of a PNG."""
    with Image.open(BytesIO(content), formats=["PNG"]) as image:
        return np.array(image)


class Caller:
    """Of the server at "host:port"."""

    def __init__(self, address):
        self.address = address
        self.place = (address.rpartition(":")[0], int(address.rpartition(":")[2]))

    def connect(self):
        return socket.create_connection(self.place, timeout=60)

    def call(self, method, path, body=None, **headers):
        """Status, headers and body of an answer on a connection of its own; an error where it is not all there."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def begin(self, length, content=b"", how="Content-Length: {}"):
        """A connection on which a request for a mask has begun."""
        connection = self.connect()
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{how.format(length)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        return connection


def answered(connection):
    """Status and body of the answer on a connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


@contextmanager
def serving(*options, model="streets"):
    """A process, and where it answers."""
    words = [sys.executable, "-c", COMMAND, model, "--port", "0", "--device", "cpu", "--shorter_side", "0"]
    with subprocess.Popen([*words, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            (address,) = islice((line for line in process.stdout if "http://" in line), 1)
            yield process, Caller(address.split("http://")[1].split(",")[0])
        finally:
            process.kill()
