"""What the tests of the page share: images, waiting, and a visitor who speaks to the server without a browser."""

import gc
import http.client
import io
import json
import time
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

from sanet.demo.actions import NO_LEGEND
from sanet.demo.page import NO_OTHER
from sanet.demo.visit import Visit


def png(height, width, seed=0):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


def open_visits():
    """All visits that are in memory and hold an image."""
    gc.collect()
    return [found for found in gc.get_objects() if type(found) is Visit and not found.closed]


class Visitor:
    """One session, over plain HTTP."""

    def __init__(self, address, session, other="fcn"):
        self.address, self.session, self.other = address, session, other
        self.host = address.removeprefix("http://").rstrip("/")

    def post(self, content, headers=None):
        """Status and body of an upload."""
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        connection = http.client.HTTPConnection(self.host, timeout=20)
        given = {"Content-Type": "multipart/form-data; boundary=x", **(headers or {})}
        connection.request("POST", "/gradio_api/upload", body + content + b"\r\n--x--\r\n", given)
        with connection.getresponse() as response:
            return response.status, response.read()

    def get(self, path, headers=None):
        connection = http.client.HTTPConnection(self.host, timeout=20)
        connection.request("GET", path, headers=headers or {})
        with connection.getresponse() as response:
            return response.status, response.read()

    def event(self, name, *data, **more):
        """The answer to an event of the page, such as "upload"."""
        config = json.load(urlopen(f"{self.address}config", timeout=20))
        found = next(entry for entry in config["dependencies"] if any(name in target for target in entry["targets"]))
        settings = [0.5, "mask", "attention", NO_OTHER, "sanet", NO_LEGEND, self.other, NO_LEGEND]
        body = {"data": [*data, *settings], "fn_index": found["id"], "session_hash": self.session, **more}
        url, kind = f"{self.address}gradio_api/queue", {"Content-Type": "application/json"}
        urlopen(Request(f"{url}/join", json.dumps(body).encode(), kind), timeout=20).close()
        with urlopen(f"{url}/data?session_hash={self.session}", timeout=60) as events:
            messages = [json.loads(line[5:]) for line in events if line.startswith(b"data:")]
        return next(message for message in messages if message["msg"] == "process_completed")

    def upload(self, content):
        """The answer to an image, and its path on the server."""
        status, body = self.post(content)
        assert status == 200
        (path,) = json.loads(body)
        return self.event("upload", file_data(path)), path

    def click(self):
        return self.event("select", None, event_data={"index": [3, 4], "value": None})


def file_data(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}
