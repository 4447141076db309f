"""Downloads from a server that lies, and archives that are not what they should be; nothing foreign is replaced."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sanet.data import download as module
from sanet.data.download import DATASETS, Archive, DownloadError, download
from sanet.structures import SanetError, UsageError

CONTENT = {"set/a.jpg": b"a" * 1000, "set/deep/noise": os.urandom(50_000), "README": b"x"}


def packed(content: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return stream.getvalue()


DATA = packed(CONTENT)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served; "tiny" is a dataset of one archive, at addresses of which the first does not exist."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        offer(monkeypatch, DATA, f"http://127.0.0.1:{server.server_port}")
        yield folder
        server.shutdown()
        thread.join()


def offer(monkeypatch: pytest.MonkeyPatch, data: bytes, host: str = "http://127.0.0.1:9") -> None:
    urls = tuple(f"{host}/{name}" for name in ("gone/set.tgz", "wrong/set.tgz", "set.tgz"))
    monkeypatch.setattr(module, "DATASETS", {"tiny": (Archive(urls, "set", hashlib.sha256(data).hexdigest()),)})


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpacked(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(root).items() if not name.startswith("archives/")}


WANTED = {name: data for name, data in CONTENT.items() if name.startswith("set/")}


def test_a_dataset_is_downloaded_once_from_the_first_address_that_has_it(served: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (served / "wrong").mkdir()
    (served / "wrong" / "set.tgz").write_bytes(b"another file")
    (served / "set.tgz").write_bytes(DATA)
    download("tiny", root, progress=False)
    assert unpacked(root) == WANTED
    assert set(files(root / "archives")) == {"set.tgz", "set.tgz.unpacked"}
    (root / "archives" / "set.tgz").unlink()  # it may be deleted
    (served / "set.tgz").unlink()
    before = {path: path.stat().st_mtime_ns for path in (root / "set").rglob("*")}
    download("tiny", root, progress=False)
    assert {path: path.stat().st_mtime_ns for path in (root / "set").rglob("*")} == before


def test_every_address_is_listed_where_none_has_it(served: Path, tmp_path: Path) -> None:
    (served / "set.tgz").write_bytes(DATA[:-1])
    with pytest.raises(DownloadError, match=r"(?s)gone/set\.tgz.*wrong/set\.tgz.*--archive"):
        download("tiny", tmp_path / "root", progress=False)
    assert files(tmp_path / "root") == {}


def test_an_archive_of_the_user_is_used_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, DATA)
    own, root = tmp_path / "set.tgz", tmp_path / "root"
    own.write_bytes(DATA[:-1])
    with pytest.raises(DownloadError, match=r"set\.tgz.*SHA-256"):
        download("tiny", root, [own])
    own.write_bytes(DATA)
    download("tiny", root, [own])
    assert unpacked(root) == WANTED
    assert own.read_bytes() == DATA
    for path in (tmp_path / "sets.tgz", tmp_path / "no" / "set.tgz"):
        with pytest.raises(UsageError, match=path.name):
            download("tiny", root, [path])


def test_what_is_in_the_way_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, DATA)
    own, root = tmp_path / "set.tgz", tmp_path / "root"
    own.write_bytes(DATA)
    (root / "set").mkdir(parents=True)
    (root / "set" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"a\.jpg"):
        download("tiny", root, [own])
    assert (root / "set" / "a.jpg").read_bytes() == b"mine"
    (root / "set" / "a.jpg").write_bytes(CONTENT["set/a.jpg"])
    (root / "set" / "more").write_bytes(b"mine")
    download("tiny", root, [own])
    assert unpacked(root) == WANTED | {"set/more": b"mine"}
    (root / "archives" / "set.tgz").write_bytes(b"mine")
    (root / "archives" / "set.tgz.unpacked").unlink()
    with pytest.raises(UsageError, match=r"--root: .*set\.tgz"):
        download("tiny", root)
    assert (root / "archives" / "set.tgz").read_bytes() == b"mine"


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "data",
    [
        packed({"../out": b"x", "set/a": b"x"}),
        packed({"set/a": b"x"}, link("set/out", "/etc/passwd")),
        packed({"other/a": b"x"}),
        DATA[: len(DATA) // 2],
        b"no archive",
    ],
    ids=["leads out", "link out", "another folder", "cut", "no archive"],
)
def test_what_cannot_be_unpacked_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    offer(monkeypatch, data)
    own, root = tmp_path / "set.tgz", tmp_path / "deep" / "root"
    own.write_bytes(data)
    with pytest.raises(DownloadError, match=r"set"):
        download("tiny", root, [own])
    assert files(tmp_path) == {"set.tgz": data}


def test_what_is_asked_for_has_to_exist_and_be_writable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'vok'.*'voc'"):
        download("vok", tmp_path)
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(SanetError, match="file"):
        download("voc", tmp_path / "file")


def test_the_archives_have_sums_and_go_where_the_datasets_look() -> None:
    for archives in DATASETS.values():
        for archive in archives:
            assert len(archive.sha256) == 64
            assert all(url.endswith(f"/{archive.name}") for url in archive.urls)
    holds = {name: {archive.holds for archive in archives} for name, archives in DATASETS.items()}
    assert holds["voc"] == {"VOCdevkit/VOC2012"}
    assert holds["voc_aug"] == {"VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"}
