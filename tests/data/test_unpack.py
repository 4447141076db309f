"""What an archive may do to a folder: put its own files there, and nothing else."""

from __future__ import annotations

import gzip
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from sanet.data import unpack as module
from sanet.data.archives import Archive, DownloadError
from sanet.data.unpack import unpack

CONTENT = {"set/images/a.jpg": b"a" * 2000, "set/images/b.jpg": b"b" * 3000, "set/list.txt": b"a\nb\n", "README": b"x"}
SUFFIXES = ("tar", "tar.gz", "tgz", "zip")


def pack(path: Path, content: Mapping[str, bytes]) -> Path:
    """An archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
            for name, data in content.items():
                package.writestr(name, data)
        return path
    with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pack_infos(path: Path, *infos: tarfile.TarInfo, content: Mapping[str, bytes] = CONTENT) -> Path:
    """The same with entries that are not files."""
    pack(path, content)
    with tarfile.open(path, "a") as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(b"z" * info.size) if info.isreg() else None)
    return path


def info(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, size
    return entry


def archive(path: Path, parts: tuple[str, ...] = ("set",), unpacked: int = 100_000, members: int = 100) -> Archive:
    return Archive(path.name, ("https://x",), path.stat().st_size, parts, unpacked=unpacked, members=members)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuse(path: Path, root: Path, words: str, **limits: int) -> None:
    """It raises, names archive and reason, and leaves nothing, inside the root or beside it."""
    before = files(root.parent)
    with pytest.raises(DownloadError, match=words) as caught:
        unpack(archive(path, **limits), path, root, progress=False)  # type: ignore[arg-type]
    assert str(path) in str(caught.value)
    assert files(root.parent) == before
    assert not (root / "set").exists()
    assert not list(root.glob(".unpacking-*"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_parts_are_unpacked_and_nothing_else(tmp_path: Path, root: Path, suffix: str) -> None:
    path = pack(tmp_path / f"set.{suffix}", CONTENT)
    unpack(archive(path), path, root, progress=False)
    assert files(root) == {name: data for name, data in CONTENT.items() if name.startswith("set/")}
    assert not list(root.glob(".*"))


def test_a_prefix_of_dots_and_entries_for_folders_are_usual(tmp_path: Path, root: Path) -> None:
    path = pack_infos(tmp_path / "set.tar", info("./set/empty", tarfile.DIRTYPE), content={"./set/a": b"1"})
    unpack(archive(path), path, root, progress=False)
    assert files(root) == {"set/a": b"1"}
    assert (root / "set/empty").is_dir()


def test_a_part_may_be_a_file_and_go_into_a_folder(tmp_path: Path, root: Path) -> None:
    path = pack(tmp_path / "set.zip", CONTENT)
    unpack(Archive(path.name, (), 1, ("README", "set/images"), into="x/y", unpacked=10_000), path, root, False)
    assert set(files(root)) == {"x/y/README", "x/y/set/images/a.jpg", "x/y/set/images/b.jpg"}


def test_a_file_that_is_no_archive_is_copied(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"1: sky\n")
    unpack(Archive(path.name, (), 7), path, root, False)
    assert files(root) == {"labels.txt": b"1: sky\n"}
    assert path.is_file()


def test_modes_and_owners_of_the_archive_do_not_count(tmp_path: Path, root: Path) -> None:
    entry = info("set/run", tarfile.REGTYPE, size=4)
    entry.mode = 0o6777
    path = pack_infos(tmp_path / "set.tar", entry)
    unpack(archive(path), path, root, progress=False)
    assert stat.S_IMODE((root / "set/run").stat().st_mode) & 0o7111 == 0


@pytest.mark.parametrize("suffix", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../out", "set/../../out", "/out", "set/../set/ok", "set\\..\\..\\out", "C:/out"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, root: Path, suffix: str, name: str) -> None:
    path = tmp_path / f"set.{suffix}"
    content = {**CONTENT, name: b"evil"}
    refuse(pack(path, content), root, "leads out of the folder")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("set/link", tarfile.SYMTYPE, "../../outside"),
        ("set/link", tarfile.SYMTYPE, "/etc"),
        ("set/link", tarfile.SYMTYPE, "images"),
        ("set", tarfile.SYMTYPE, "/tmp"),
        ("set/link", tarfile.LNKTYPE, "/etc/passwd"),
        ("set/link", tarfile.LNKTYPE, "set/images/a.jpg"),
        ("set/pipe", tarfile.FIFOTYPE, ""),
        ("set/device", tarfile.CHRTYPE, ""),
        ("set/disk", tarfile.BLKTYPE, ""),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, root: Path, name: str, kind: bytes, link: str) -> None:
    refuse(pack_infos(tmp_path / "set.tar", info(name, kind, link)), root, r"a (link to|special file)")


def test_a_file_through_a_link_of_the_archive_is_refused(tmp_path: Path, root: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = info("set/away", tarfile.SYMTYPE, str(outside))
    path = pack_infos(tmp_path / "set.tar", link, info("set/away/evil", tarfile.REGTYPE, size=4))
    refuse(path, root, "a link to")
    assert not any(outside.iterdir())


def test_a_link_beside_the_parts_is_not_made(tmp_path: Path, root: Path) -> None:
    path = pack_infos(tmp_path / "set.tar", info("other/link", tarfile.SYMTYPE, "/etc"))
    unpack(archive(path), path, root, progress=False)
    assert not (root / "other").exists()


@pytest.mark.parametrize(("kind", "words"), [(stat.S_IFLNK, "symbolic link"), (stat.S_IFIFO, "special file")])
def test_a_link_in_a_zip_is_refused(tmp_path: Path, root: Path, kind: int, words: str) -> None:
    path = pack(tmp_path / "set.zip", CONTENT)
    with zipfile.ZipFile(path, "a") as package:
        entry = zipfile.ZipInfo("set/link")
        entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
        package.writestr(entry, "../../outside")
    refuse(path, root, words)


def test_one_name_twice_is_refused(tmp_path: Path, root: Path) -> None:
    path = pack_infos(tmp_path / "set.tar", info("set/list.txt", tarfile.REGTYPE, size=4))
    refuse(path, root, "twice")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_bytes_than_the_table_says_are_refused(tmp_path: Path, root: Path, suffix: str) -> None:
    path = pack(tmp_path / f"set.{suffix}", {"set/noise": os.urandom(50_000), "set/more": os.urandom(50_000)})
    refuse(path, root, "more than the 60.0 kB", unpacked=60_000)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_entries_than_the_table_says_are_refused(tmp_path: Path, root: Path, suffix: str) -> None:
    refuse(pack(tmp_path / f"set.{suffix}", {f"set/{n}": b"" for n in range(40)}), root, "the 30 entries", members=30)


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path, root: Path, suffix: str) -> None:
    path = pack(tmp_path / f"set.{suffix}", {"set/zeros": bytes(30_000_000)})
    assert path.stat().st_size < 60_000
    refuse(path, root, "unpacks to more", unpacked=10**12)


def test_a_bomb_of_headers_is_refused(tmp_path: Path, root: Path) -> None:
    header = info("set/x", tarfile.XHDTYPE, size=1 << 30)
    path = tmp_path / "set.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)))
    refuse(path, root, "a header claims", unpacked=10**15)


def test_a_sparse_file_is_refused(tmp_path: Path, root: Path) -> None:
    entry = info("set/sparse", tarfile.REGTYPE)
    entry.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": "9",
    }
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry)
    refuse(path, root, "special file")


def test_what_is_written_is_counted_whatever_the_headers_say(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "set.tar", {"set/a": bytes(50_000)})
    honest = module._members

    def lying(path: Path):  # type: ignore[no-untyped-def]
        for member in honest(path):
            yield member._replace(size=10)

    monkeypatch.setattr(module, "_members", lying)
    refuse(path, root, "unpacks to more")


def test_a_zip_that_understates_its_sizes_is_refused(tmp_path: Path, root: Path) -> None:
    path = pack(tmp_path / "set.zip", {"set/a": bytes(50_000)})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(mark) + offset
        data[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    refuse(path, root, "cannot be unpacked")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_archive_is_named(tmp_path: Path, root: Path, suffix: str, damage: str) -> None:
    path = pack(tmp_path / f"set.{suffix}", {f"set/{n}": os.urandom(1000) for n in range(30)})
    path.write_bytes({"cut": path.read_bytes()[:9000], "noise": os.urandom(9000), "empty": b""}[damage])
    refuse(path, root, "cannot be unpacked|holds no set|unpacks to more")


def test_a_part_that_is_not_in_it_is_named(tmp_path: Path, root: Path) -> None:
    path = pack(tmp_path / "set.zip", {"other/a": b"1"})
    refuse(path, root, "holds no set")


def test_two_archives_share_a_folder(tmp_path: Path, root: Path) -> None:
    first = pack(tmp_path / "first.tar", {"set/images/a": b"1", "set/same": b"s"})
    second = pack(tmp_path / "second.zip", {"set/images/b": b"2", "set/same": b"s"})
    for path in (first, second, first):
        unpack(archive(path), path, root, progress=False)
    assert files(root) == {"set/images/a": b"1", "set/images/b": b"2", "set/same": b"s"}


@pytest.mark.parametrize("name", ["set/same", "set"])
def test_a_different_file_in_the_way_stays(tmp_path: Path, root: Path, name: str) -> None:
    path = pack(tmp_path / "set.tar", {"set/same": b"new"})
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(b"old")
    with pytest.raises(DownloadError, match="is there already and differs"):
        unpack(archive(path), path, root, progress=False)
    assert files(root) == {name: b"old"}


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "set.tar", CONTENT)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: FakeUsage)
    refuse(path, root, r"needs 5.0 kB in .* where 100 bytes are free")


class FakeUsage:
    free = 100


def run_child(code: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


CHILD = """
import sys, time
from pathlib import Path
from sanet.data import unpack as module
from sanet.data.archives import Archive, DownloadError
path, root = Path(sys.argv[1]), Path(sys.argv[2])
archive = Archive(path.name, (), path.stat().st_size, ("set",), unpacked=10**8)
"""


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, root: Path) -> None:
    path = pack(tmp_path / "set.tar", {"set/a": bytes(1000), "set/large": bytes(3_000_000)})
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    act = "try: module.unpack(archive, path, root, False)\nexcept DownloadError as error: print(error)\n"
    child = run_child(CHILD + limit + act, path, root)
    said, problems = child.communicate(timeout=60)
    assert child.returncode == 0, problems
    assert "cannot be written: File too large. 3.0 MB more were needed" in said
    assert "are free; make room and run this again" in said
    assert not any(root.iterdir())
    unpack(archive(path, unpacked=10**7), path, root, progress=False)
    assert len(files(root)["set/large"]) == 3_000_000


@pytest.mark.parametrize("place", ["write", "_merge"])
def test_an_unpacking_that_was_killed_starts_again(tmp_path: Path, root: Path, place: str) -> None:
    content = {f"set/{folder}/{n}": bytes([n]) * 500 for folder in "ab" for n in range(20)}
    path = pack(tmp_path / "set.tar", content)
    (root / "set/a").mkdir(parents=True)  # so that its files are moved one by one
    slow = f"""
count, honest = 0, module.{place}
def slow(*arguments):
    global count
    count += 1
    if count == 4:
        print("now", flush=True)
        time.sleep(60)
    return honest(*arguments)
module.{place} = slow
module.unpack(archive, path, root, False)
"""
    child = run_child(CHILD + slow, path, root)
    assert child.stdout is not None
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert list(root.glob(".unpacking-*"))
    unpack(archive(path), path, root, progress=False)
    assert files(root) == content
    assert not list(root.glob(".*"))
