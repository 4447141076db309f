"""A process that serves a model, as careless and malicious callers meet it, and as it ends."""

import http.client
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from caller import answered, mask_in, png_header, serving

from sanet.serve.config import ServeConfig
from sanet.serve.server import serve
from sanet.structures import SanetError, UsageError


def requests_of(caller):
    """How many are at work."""
    return int(caller.call("GET", "/health")[2].decode().partition('"requests":')[2].rstrip("}"))


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def cut_off(connection, sent):
    """Whether the other side has closed a connection, which what is sent then shows."""
    try:
        connection.sendall(sent)
    except ConnectionError:
        return True
    return False


def most_memory(process):
    """Its largest memory so far, in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_many_callers_get_their_own_answers(served, images):
    _, caller = served

    def ask(number):
        content, mask = images[number % len(images)]
        status, headers, body = caller.call("POST", "/predict", content)
        assert int(headers["Content-Length"]) == len(body)
        return status == 200 and np.array_equal(mask_in(body), mask)

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(ask, range(120)))


def test_too_many_bytes_are_refused_before_they_are_in_memory(served):
    process, caller = served
    before = most_memory(process)
    for how, part in (
        ("Content-Length: {}", b""),
        ("Transfer-Encoding: chunked", b"10000\r\n" + bytes(65536) + b"\r\n"),
    ):
        with caller.begin(10**12, how=how) as connection:
            for _ in range(16 if part else 0):
                connection.sendall(part)
            status, body = answered(connection)
            assert (status, b"1000000 bytes" in body) == (413, True)
            wait_until(lambda part=part or bytes(65536): cut_off(connection, part))  # who goes on
    assert most_memory(process) - before < 50e6
    assert caller.call("POST", "/predict", bytes(1_000_001))[0] == 413
    assert caller.call("POST", "/predict", bytes(1_000_000))[0] == 415


@pytest.mark.parametrize("content", [png_header(60_000, 60_000), png_header(800, 700), b"BM" + bytes(900_000)])
def test_a_bomb_takes_no_memory(served, content):
    process, caller = served
    before = most_memory(process)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: caller.call("POST", "/predict", content)[0], range(30)))
    assert set(answers) <= {413, 415, 422}
    assert most_memory(process) - before < 50e6


@pytest.mark.slow
def test_a_body_or_a_head_that_does_not_come_is_given_up(served):
    _, caller = served
    with caller.begin(1000, b"\x89PNG") as body, caller.connect() as head, caller.connect() as nothing:
        nothing.settimeout(60)
        wait_until(lambda: cut_off(head, b"G"))  # byte by byte
        assert nothing.recv(1) == b""
        assert answered(body)[0] == 408
    wait_until(lambda: requests_of(caller) == 0)


def test_those_who_come_when_all_places_are_taken_are_told_so(served, images):
    _, caller = served
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(caller.begin(1000))
        wait_until(lambda: requests_of(caller) == 8)
        status, headers, _ = caller.call("POST", "/predict", images[0][0])
        assert (status, headers["Retry-After"]) == (503, "1")
    wait_until(lambda: requests_of(caller) == 0)  # they have gone
    assert caller.call("POST", "/predict", images[0][0])[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/%2e%2e/etc/passwd", "/predict/../etc/passwd", "//etc/passwd", "/predict%00", "/static"],
)
def test_no_file_is_served(served, path):
    assert served[1].call("GET", path)[0] == 404


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10**6 + b"\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_is_no_trouble(served, images, sent):
    _, caller = served
    with caller.connect() as connection, suppress(ConnectionError):
        connection.sendall(sent)
        assert b" 400 " in connection.recv(1000)[:20]
    assert caller.call("POST", "/predict", images[0][0])[0] == 200


def test_a_caller_who_leaves_is_no_trouble(served, images):
    process, caller = served
    for content, _ in images:
        caller.begin(len(content), content[:-10]).close()
        caller.begin(len(content), content).close()
    wait_until(lambda: requests_of(caller) == 0)
    assert caller.call("POST", "/predict", images[0][0])[0] == 200
    assert process.poll() is None


@pytest.mark.slow
def test_it_ends_by_sigterm_with_what_has_begun(images, monkeypatch):
    """The token comes from the environment."""
    monkeypatch.setenv("SANET_TOKEN", "s3cret")
    content, mask = images[0]
    head = "Content-Length: {}\r\nAuthorization: Bearer s3cret"
    with serving() as (process, caller), caller.begin(len(content), content[:100], head) as connection:
        assert caller.call("POST", "/predict", content)[0] == 401
        wait_until(lambda: requests_of(caller) == 1)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not reachable(caller))
        connection.sendall(content[100:])
        status, body = answered(connection)
        assert status == 200
        np.testing.assert_array_equal(mask_in(body), mask)
        assert process.wait(60) == 0


def reachable(caller):
    try:
        caller.connect().close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_killed_under_load_it_answers_nothing_by_halves(images):
    with serving() as (process, caller):

        def ask(number):
            content, mask = images[number % len(images)]
            try:
                status, _, body = caller.call("POST", "/predict", content)
            except (OSError, http.client.HTTPException):
                return "error"
            return "right" if status == 200 and np.array_equal(mask_in(body), mask) else "wrong"

        with ThreadPoolExecutor(6) as threads:
            answers = [threads.submit(ask, number) for number in range(2000)]
            wait_until(lambda: sum(each.done() for each in answers) >= 30)
            process.kill()
            found = [each.result() for each in answers]
    assert set(found) == {"right", "error"}


def test_others_need_a_token(monkeypatch):
    monkeypatch.delenv("SANET_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", ""):
        with pytest.raises(UsageError, match="token"):
            serve("streets", ServeConfig(host, 0))
    monkeypatch.setenv("SANET_TOKEN", "s3cret")
    with pytest.raises(SanetError, match="--host"):  # no address of this computer
        serve("streets", ServeConfig("192.0.2.1", 0))


def test_a_port_that_is_taken_is_an_error(served):
    with pytest.raises(SanetError, match="--port"):
        serve("streets", ServeConfig(port=served[1].place[1]))
