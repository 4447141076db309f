"""Downloads from a real server that cuts, lies, forgets and changes its mind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from sanet.data.archives import TABLE, Archive, Collection, DownloadError, sums, with_mirrors

from sanet.data import archives, unpack
from sanet.data import download as module
from sanet.data.download import download
from sanet.structures import SanetError, UsageError

CONTENT = {"set/a.jpg": b"a" * 1000, "set/noise": os.urandom(400_000)}


def packed(content: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


DATA = packed(CONTENT)
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Served:
    """One file of the server, and its manners."""

    data: bytes
    etag: str | None = '"one"'
    changed: str | None = None
    ranges: bool = True
    believes: bool = True  # honours If-Range
    cuts: list[int] = field(default_factory=list)  # bytes after which each connection ends
    statuses: list[int] = field(default_factory=list)  # what is answered first
    stalls: float = 0.0  # seconds before each further piece
    length: bool = True
    shift: int = 0  # how far its ranges are off
    location: str = ""
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)  # Range and If-Range
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    files: dict[str, Served]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        served = self.files.get(self.path)
        if served is None:
            return self.send_error(404)
        wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
        served.asked.append((wanted, version))
        if served.location:
            self.send_response(302)
            self.send_header("Location", served.location)
            return self.end_headers()
        if served.statuses:
            return self.send_error(served.statuses.pop(0))
        begin, same = 0, version in (served.etag, served.changed) or not served.believes
        if wanted and served.ranges and same:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) + served.shift
            if begin >= len(served.data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(served.data)}")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(served.data) - 1}/{len(served.data)}")
        else:
            self.send_response(200)
        for name, value in (("ETag", served.etag), ("Last-Modified", served.changed)):
            if value:
                self.send_header(name, value)
        if served.length:
            self.send_header("Content-Length", str(len(served.data) - begin))
        self.end_headers()
        rest = served.data[begin:]
        if served.cuts:
            rest = rest[: served.cuts.pop(0)]
        for piece in (rest[start : start + 50_000] for start in range(0, len(rest), 50_000)):
            self.wfile.write(piece)
            self.wfile.flush()
            served.sent += len(piece)
            time.sleep(served.stalls)


@dataclass
class Server:
    url: str
    files: dict[str, Served]

    def serve(self, name: str, data: bytes = DATA, **manners: object) -> Served:
        self.files[f"/{name}"] = Served(data, **manners)  # type: ignore[arg-type]
        return self.files[f"/{name}"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(module, "TIMEOUT", 5.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Ours", (Handler,), {"files": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield Server(f"http://127.0.0.1:{running.server_port}", handler.files)  # type: ignore[attr-defined]
        running.shutdown()
        thread.join()


def table(server: Server, *names: str, **changes: object) -> dict[str, Collection]:
    urls = tuple(f"{server.url}/{name}" for name in names or ("set.tar",))
    one = Archive("set.tar", urls, len(DATA), ("set",), unpacked=1_000_000, sha256=SHA256)
    return {"tiny": Collection((replace(one, **changes),), "free of terms")}  # type: ignore[arg-type]


def get(server: Server, root: Path, *names: str, **changes: object) -> None:
    download("tiny", root, progress=False, table=table(server, *names, **changes))


def is_whole(root: Path) -> bool:
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in (root / "set").rglob("*")}
    rest = {path.name for path in (root / "archives").iterdir()} - {".sanet.lock"}
    return found == CONTENT and rest == {"set.tar", "set.tar.unpacked"}


def test_a_data_set_is_downloaded_and_unpacked(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = server.serve("set.tar")
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert served.asked == [(None, None)]
    said = capsys.readouterr().out
    assert "tiny: free of terms" in said
    assert "set.tar: 409.6 kB to download" in said
    assert f"tiny is there: {tmp_path / 'set'}" in said
    assert f"the downloaded archives stay in {tmp_path / 'archives'}" in said


def test_a_second_run_asks_for_nothing_and_changes_nothing(server: Server, tmp_path: Path) -> None:
    def files() -> dict[Path, tuple[int, int, int]]:  # not st_atime: reading may change it
        found = ((path, path.stat()) for path in tmp_path.rglob("*") if path.is_file() and path.name != ".sanet.lock")
        return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found}

    served = server.serve("set.tar")
    get(server, tmp_path)
    (tmp_path / "archives" / "set.tar").unlink()  # it may be deleted
    before = files()
    get(server, tmp_path)
    assert len(served.asked) == 1
    assert len(before) > 1
    assert files() == before


def test_a_folder_that_was_deleted_is_unpacked_again_from_the_archive(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar")
    get(server, tmp_path)
    for path in (tmp_path / "set").iterdir():
        path.unlink()
    (tmp_path / "set").rmdir()
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert len(served.asked) == 1


def test_a_connection_that_is_cut_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar", cuts=[100_000, 50_000, 70_000, 1, 1, 1, 1, 1])
    get(server, tmp_path)
    assert is_whole(tmp_path)
    begins = [100_000, 150_000, 220_000, 220_001, 220_002, 220_003, 220_004, 220_005]
    assert served.asked == [(None, None), *((f"bytes={begin}-", '"one"') for begin in begins)]
    assert served.sent == len(DATA)


def test_the_time_of_the_last_change_does_where_there_is_no_strong_tag(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar", cuts=[100_000], etag='W/"x"', changed="Sat, 01 Jan 2022 00:00:00 GMT")
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert served.asked[1] == ("bytes=100000-", "Sat, 01 Jan 2022 00:00:00 GMT")


def test_without_a_version_it_starts_anew(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar", cuts=[100_000], etag=None)
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert served.asked == [(None, None), (None, None)]


def test_a_server_without_ranges_sends_all_of_it(server: Server, tmp_path: Path) -> None:
    server.serve("set.tar", cuts=[100_000, 200_000], ranges=False)
    get(server, tmp_path)
    assert is_whole(tmp_path)


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar", cuts=[100_000] * 99, ranges=False)
    with pytest.raises(DownloadError, match="cut after 100000 of 409600 bytes; nothing more came"):
        get(server, tmp_path)
    assert len(served.asked) == 4
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("believes", [True, False])
def test_a_file_that_changed_is_not_glued(server: Server, tmp_path: Path, believes: bool) -> None:
    old = server.serve("set.tar", bytes(len(DATA)), cuts=[100_000, 0, 0, 0], etag='"old"')
    with pytest.raises(DownloadError, match="cut after"):
        get(server, tmp_path)
    assert (tmp_path / "archives" / "set.tar.part").stat().st_size == 100_000
    assert len(old.asked) == 4
    new = server.serve("set.tar", etag='"new"', believes=believes)
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert new.asked[0] == ("bytes=100000-", '"old"')


def test_a_range_that_was_not_asked_for_is_not_glued(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar", cuts=[100_000], shift=-1)
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert [asked[0] for asked in served.asked] == [None, "bytes=100000-", None]


def test_a_run_that_was_killed_goes_on(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar", stalls=0.2)
    code = """
import sys
from pathlib import Path
from sanet.data.archives import Archive, Collection
from sanet.data.download import download
url, root, size, sha256 = sys.argv[1:]
archive = Archive("set.tar", (url,), int(size), ("set",), unpacked=10**6, sha256=sha256)
download("tiny", Path(root), progress=False, table={"tiny": Collection((archive,), "")})
"""
    words = [f"{server.url}/set.tar", str(tmp_path), str(len(DATA)), SHA256]
    child = subprocess.Popen([sys.executable, "-c", code, *words])
    part = tmp_path / "archives" / "set.tar.part"
    while not part.is_file() or part.stat().st_size < 100_000:
        assert child.poll() is None
        time.sleep(0.02)
    with pytest.raises(DownloadError, match=r"another download into .* is running; wait"):
        get(server, tmp_path)
    child.send_signal(signal.SIGKILL)
    child.wait()
    served.stalls = 0.0
    get(server, tmp_path)
    assert is_whole(tmp_path)
    begin = re.fullmatch(r"bytes=(\d+)-", str(served.asked[-1][0]))
    assert begin is not None
    assert int(begin[1]) >= 100_000


def test_a_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar")
    put_part(tmp_path, DATA)
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert served.sent == 0


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.serve("set.tar")
    put_part(tmp_path, DATA + b"more")
    get(server, tmp_path)
    assert is_whole(tmp_path)


def put_part(root: Path, data: bytes, version: str = '"one"') -> None:
    (root / "archives").mkdir()
    (root / "archives" / "set.tar.part").write_bytes(data)
    notes = json.dumps({"url": "x", "version": version})
    (root / "archives" / "set.tar.part.json").write_text(notes)


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"version": 3}', "\xff"])
def test_notes_that_are_damaged_do_no_harm(server: Server, tmp_path: Path, notes: str) -> None:
    server.serve("set.tar")
    put_part(tmp_path, DATA[:1000])
    (tmp_path / "archives" / "set.tar.part.json").write_bytes(notes.encode("latin-1"))
    get(server, tmp_path)
    assert is_whole(tmp_path)


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar", statuses=[503, 429, 500])
    get(server, tmp_path)
    assert len(served.asked) == 4
    gone = server.serve("gone", statuses=[403])
    with pytest.raises(DownloadError, match="status 403"):
        get(server, tmp_path / "other", "gone")
    assert len(gone.asked) == 1


def test_a_server_that_falls_silent_is_asked_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    served = server.serve("set.tar", stalls=0.6)
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert [asked[0] for asked in served.asked[:3]] == [None, "bytes=50000-", "bytes=100000-"]


def test_a_server_that_is_not_there_is_named(tmp_path: Path, server: Server) -> None:
    nowhere = Server("http://127.0.0.1:9", {})
    with pytest.raises(DownloadError, match=r"127.0.0.1:9/set.tar: .*refused; nothing more came"):
        get(nowhere, tmp_path)


def test_mirrors_are_asked_in_order_until_the_sum_is_right(server: Server, tmp_path: Path) -> None:
    server.serve("wrong", bytes(len(DATA)))
    server.serve("page", b"<html>please log in</html>")
    server.serve("right", cuts=[100_000])
    last = server.serve("last")
    get(server, tmp_path, "missing", "wrong", "page", "right", "last")
    assert is_whole(tmp_path)
    assert not last.asked


def test_every_mirror_is_listed_when_none_has_it(server: Server, tmp_path: Path) -> None:
    server.serve("wrong", bytes(len(DATA)))
    server.serve("long", bytes(4_000_000))
    server.serve("endless", bytes(4_000_000), length=False)
    with pytest.raises(DownloadError) as caught:
        get(server, tmp_path, "missing", "wrong", "long", "endless")
    said = str(caught.value)
    wrong = hashlib.sha256(bytes(len(DATA))).hexdigest()
    assert "set.tar cannot be downloaded" in said
    assert f"{server.url}/missing: status 404, Not Found" in said
    assert f"{server.url}/wrong: its SHA-256 is {wrong}, not {SHA256}" in said
    assert f"{server.url}/long: it has 4.0 MB, and should have 409.6 kB" in said
    assert f"{server.url}/endless: it goes on after 1.9 MB" in said
    assert "--archive" in said
    assert "--mirrors" in said
    assert not (tmp_path / "set").exists()
    assert {path.name for path in (tmp_path / "archives").iterdir()} <= {".sanet.lock"}


def test_a_redirection_is_followed_to_http_only(server: Server, tmp_path: Path) -> None:
    server.serve("set.tar")
    server.serve("moved", location=f"{server.url}/set.tar")
    server.serve("local", location="file:///etc/passwd")
    server.serve("ftp", location="ftp://127.0.0.1/set.tar")
    get(server, tmp_path, "moved")
    for name in ("local", "ftp"):
        with pytest.raises(DownloadError, match=r"not allowed|unknown url type"):
            get(server, tmp_path / name, name)


def test_an_address_may_be_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "copy.tar").write_bytes(DATA)
    urls = (f"file://{tmp_path}/missing.tar", f"file://{tmp_path}/copy.tar")
    get(server, tmp_path / "root", urls=urls)
    assert is_whole(tmp_path / "root")


def test_both_sums_count_and_an_md5_alone_does(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.serve("set.tar")
    md5 = hashlib.md5(DATA).hexdigest()
    with pytest.raises(DownloadError, match=f"its MD5 is {md5}, not 0"):
        get(server, tmp_path / "a", md5="0" * 32)
    get(server, tmp_path / "b", sha256="", md5=md5)
    assert "checked by its MD5; no SHA-256 of it is published" in capsys.readouterr().out
    with pytest.raises(DownloadError, match=f"its MD5 is {md5}, not 0"):
        get(server, tmp_path / "c", sha256="", md5="0" * 32)


def test_without_a_known_sum_the_user_is_asked_for_one(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar")
    root = tmp_path / "root"
    with pytest.raises(DownloadError, match=r"no checksum of set.tar is known, so it was not unpacked") as caught:
        get(server, root, sha256="")
    assert not (root / "set").exists()
    line = str(caught.value).splitlines()[-1]
    assert yaml.safe_load(line) == {"set.tar": {"sha256": SHA256}}
    (tmp_path / "mirrors.yaml").write_text(line)
    download("tiny", root, (), tmp_path / "mirrors.yaml", progress=False, table=table(server, sha256=""))
    assert is_whole(root)
    assert len(served.asked) == 1  # what was downloaded was kept


def test_an_archive_in_the_folder_is_verified_and_a_wrong_one_set_aside(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar")
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "set.tar").write_bytes(b"half of it")
    get(server, tmp_path)
    assert (tmp_path / "archives" / "set.tar.wrong").read_bytes() == b"half of it"
    (tmp_path / "archives" / "set.tar.wrong").unlink()
    assert is_whole(tmp_path)
    assert len(served.asked) == 1


def test_archives_of_the_user_are_used_and_left_alone(server: Server, tmp_path: Path) -> None:
    served = server.serve("set.tar")
    own = tmp_path / "own" / "set.tar"
    own.parent.mkdir()
    own.write_bytes(DATA)
    before = own.stat()
    download("tiny", tmp_path / "root", [own], progress=False, table=table(server))
    assert not served.asked
    assert (own.stat().st_mtime_ns, own.read_bytes()) == (before.st_mtime_ns, DATA)
    assert {path.name for path in (tmp_path / "root/set").iterdir()} == {"a.jpg", "noise"}
    assert not (tmp_path / "root/archives/set.tar").exists()


def test_an_archive_of_the_user_has_to_be_the_right_one(server: Server, tmp_path: Path) -> None:
    own = tmp_path / "set.tar"
    own.write_bytes(DATA[:-1])
    with pytest.raises(DownloadError, match=r"not the published set.tar, or damaged: its SHA-256 is") as caught:
        download("tiny", tmp_path / "root", [own], progress=False, table=table(server))
    assert str(own) in str(caught.value)
    assert own.read_bytes() == DATA[:-1]
    for paths, words in (
        ([tmp_path / "sets.tar"], r"did you mean 'set.tar'\? Choices: set.tar"),
        ([tmp_path / "no" / "set.tar"], "is not a file"),
        ([own, tmp_path / "." / "set.tar"], "the same archive"),
    ):
        with pytest.raises(UsageError, match=words):
            download("tiny", tmp_path / "root", paths, progress=False, table=table(server))


def test_one_archive_that_cannot_be_had_does_not_keep_the_others(server: Server, tmp_path: Path) -> None:
    server.serve("set.tar")
    good = table(server)["tiny"].archives[0]
    bad = replace(good, name="gone.tar", urls=(f"{server.url}/gone.tar",))
    finished: list[Path] = []
    both = {"tiny": Collection((bad, good), "", lambda root, progress: finished.append(root))}
    with pytest.raises(DownloadError, match=r"gone.tar cannot be downloaded"):
        download("tiny", tmp_path, progress=False, table=both)
    assert is_whole(tmp_path)
    assert finished == []
    download("tiny", tmp_path, progress=False, table={"tiny": replace(both["tiny"], archives=(good,))})
    assert finished == [tmp_path]


def test_too_little_room_is_said_before_downloading(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = server.serve("set.tar")
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: SimpleNamespace(free=700_000))
    with pytest.raises(DownloadError, match=r"tiny, .* needs 819.2 kB in .*, where 700.0 kB are free; make room"):
        get(server, tmp_path)
    assert not served.asked


def test_a_disk_that_fills_up_while_downloading_keeps_the_part(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("set.tar")
    honest, room = module.write, [150_000]

    def full(sink: io.FileIO, chunk: bytes) -> None:
        honest(sink, chunk[: room[0]])
        room[0] -= min(room[0], len(chunk))
        if not room[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write", full)
    with pytest.raises(DownloadError, match=r"No space left on device. .* more were needed and .* are free; make room"):
        get(server, tmp_path)
    assert not (tmp_path / "set").exists()
    assert not (tmp_path / "archives/set.tar").exists()
    assert (tmp_path / "archives/set.tar.part").stat().st_size == 150_000
    monkeypatch.setattr(module, "write", honest)
    get(server, tmp_path)
    assert is_whole(tmp_path)
    assert server.files["/set.tar"].asked[-1] == ("bytes=150000-", '"one"')


def test_a_root_that_cannot_be_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"file.* cannot be written: "):
        get(server, tmp_path / "file")


def test_an_unknown_data_set_is_refused_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown data set 'vok'; did you mean 'voc'"):
        download("vok", tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_mirrors_file_changes_addresses_and_sums(server: Server, tmp_path: Path) -> None:
    other = packed({"set/other": b"o"})
    served = server.serve("elsewhere.tar", other)
    sha256 = hashlib.sha256(other).hexdigest().upper()
    path = tmp_path / "mirrors.yaml"
    path.write_text(f"set.tar:\n  urls: ['{server.url}/elsewhere.tar']\n  sha256: '{sha256}'\n")
    root = tmp_path / "root"
    download("tiny", root, (), path, False, table(server, md5="0" * 32))
    assert (root / "set/other").read_bytes() == b"o"
    assert len(served.asked) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sets.tar: {urls: [http://x]}", "unknown archive .*did you mean 'set.tar'"),
        ("set.tar: {url: [http://x]}", "unknown key .*did you mean 'urls'"),
        ("set.tar: {urls: http://x}", "should be a list"),
        ("set.tar: {urls: []}", "should be a list"),
        ("set.tar: {urls: [ftp://x]}", "'ftp://x' is not an address that starts with https://, http://, file://"),
        ("set.tar: {urls: [3]}", "is not an address"),
        ("set.tar: {urls: ['http://[x']}", "is not an address"),
        ("set.tar: {sha256: abc}", "not 64 hexadecimal digits"),
        ("set.tar: {sha256: 12}", "not 64 hexadecimal digits"),
        ("set.tar: {}", "write urls, sha256 or both"),
        ("set.tar: http://x", "write urls, sha256 or both"),
        ("- set.tar", "no keys with values"),
        ("", "no keys with values"),
        ("{", "cannot be read"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_mirrors_file_that_is_wrong_is_named(server: Server, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mirrors.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SanetError, match=words) as caught:
        with_mirrors(table(server), path)
    assert str(path) in str(caught.value)
    with pytest.raises(SanetError, match="cannot be read"):
        with_mirrors(table(server), tmp_path / "none.yaml")


def test_bars_are_shown_where_they_are_wanted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(archives, "LARGE", 1000)
    server.serve("set.tar")
    get(server, tmp_path / "a")
    assert capsys.readouterr().err == ""
    download("tiny", tmp_path / "b", table=table(server))
    said = capsys.readouterr().err
    assert "set.tar: 100%" in said
    assert "check set.tar.part: 100%" in said
    assert "unpack set.tar: 100%" in said


def test_the_sums_are_those_of_hashlib(tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "x").write_bytes(data)
    assert sums(tmp_path / "x") == (hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest())


def test_the_table_is_well_formed() -> None:
    assert {"voc", "voc_aug", "context", "context59", "context60", "coco"} <= TABLE.keys()
    official = r"http://(host\.robots\.ox\.ac\.uk|images\.cocodataset\.org)/"
    for collection in TABLE.values():
        assert collection.terms
        assert len({archive.name for archive in collection.archives}) == len(collection.archives)
        for archive in collection.archives:
            assert re.fullmatch(r"([0-9a-f]{64})?", archive.sha256)
            assert re.fullmatch(r"([0-9a-f]{32})?", archive.md5)
            assert archive.sha256 or archive.md5
            assert archive.size > 0
            assert archive.unpacked >= archive.size or archive.parts == ()
            assert archive.urls
            for url in archive.urls:
                assert re.match(rf"https://|{official}", url)
                assert url.endswith(f"/{archive.name}")
            for target in archive.targets(Path("root")):
                assert ".." not in target.parts
                assert target.is_relative_to("root")


def test_the_places_are_those_that_the_data_sets_look_in() -> None:
    places = {
        name: {str(place) for archive in collection.archives for place in archive.targets(Path())}
        for name, collection in TABLE.items()
    }
    assert places["voc"] == {"VOCdevkit/VOC2012"}
    assert places["voc_aug"] == {"VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"}
    assert places["context"] == {"VOCdevkit/VOC2010", "trainval", "labels.txt", "59_labels.txt"}
    assert places["coco"] == {"coco/train2017", "coco/val2017", "coco/annotations"}
