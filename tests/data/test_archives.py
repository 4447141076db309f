"""Archives as careless and hostile people pack them: what they hold, or an error that names them; nothing is left."""

import io
import random
import shutil
import tarfile
import tempfile
import zipfile

import pytest

from sanet.data.archives import unpacked
from sanet.data.decoding import LARGEST_FILE, DataError

FILES = {"a.png": bytes(range(256)) * 9, "deeper/b.png": b"b" * 700, "c.txt": b""}
INSIDE = {f"x/y/{name}": content for name, content in FILES.items()}
KINDS = {"zip": zipfile.ZIP_DEFLATED, "stored.zip": zipfile.ZIP_STORED, "lzma.zip": zipfile.ZIP_LZMA,
         "tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """Neither in the folder for temporary files nor beside it, whatever a test unpacks."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield
    (tmp_path / "temporary").rmdir()
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("given")] == []


def pack(folder, entries, kind="zip", *extra):
    """An archive of these entries, by name; ``extra`` goes first: name, type and target."""
    path = folder / f"given.{kind}"
    if "zip" in kind:
        with zipfile.ZipFile(path, "w", KINDS[kind]) as packed:
            for name, content in entries.items():
                packed.writestr(name, content)
        return path
    with tarfile.open(path, KINDS[kind]) as packed:
        for name, number, target in [*extra, *((name, tarfile.REGTYPE, "") for name in entries)]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = number, target, len(entries.get(name, b""))
            packed.addfile(member, io.BytesIO(entries.get(name, b"")))
    return path


def held(path):
    with unpacked(path) as folder:
        found = {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_packed_is_there(kind, tmp_path):
    assert held(pack(tmp_path, FILES, kind)) == FILES
    assert held(pack(tmp_path, {**INSIDE, "__MACOSX/x/._a.png": b"?", ".DS_Store": b"?"}, kind)) == FILES
    assert held(pack(tmp_path, {}, kind)) == {}
    assert {*held(pack(tmp_path, {f"{tmp_path}/evil.png": b"1"}, kind)).values()} == {b"1"}


def test_archives_that_others_write(tmp_path):
    """With names as on Windows, with links, with a .zip at the end of a .tar, and larger than any image."""
    path = pack(tmp_path, INSIDE, "stored.zip")
    path.write_bytes(path.read_bytes().replace(b"x/y/", b"x\\y\\").replace(b"deeper/", b"deeper\\"))
    assert held(path) == FILES
    with unpacked(pack(tmp_path, {}, "tar", ("round in a circle", tarfile.SYMTYPE, "."))) as folder:
        assert folder.parent == tmp_path / "temporary"
    same = {**FILES, "same.png": FILES["a.png"]}
    assert held(pack(tmp_path, FILES, "tar", ("same.png", tarfile.SYMTYPE, "a.png"))) == same
    packed = pack(tmp_path, FILES).read_bytes()
    assert held(pack(tmp_path, {**FILES, "last.zip": packed}, "tar")) == {**FILES, "last.zip": packed}
    with (tmp_path / "given.zip").open("wb") as file:
        file.write(b"#!")
        file.seek(LARGEST_FILE)  # which takes no room on the disk
        file.write(packed)
    assert held(tmp_path / "given.zip") == FILES


def test_what_no_archive_may_hold(tmp_path):
    links = [(tarfile.SYMTYPE, "../../given.tar"), (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.CHRTYPE, ""),
             (tarfile.LNKTYPE, "../../given.tar"), (tarfile.LNKTYPE, "nothing"), (tarfile.FIFOTYPE, "")]  # fmt: skip
    for link in links:
        with pytest.raises(DataError, match=r"given\.tar"):
            held(pack(tmp_path, FILES, "tar", ("q", *link)))
    for name in ("../evil", "x/../../evil", "..\\evil", "a" * 300, "a/" * 2500 + "b"):
        for kind in ("zip", "tar")[: 1 if "\\" in name else 2]:
            with pytest.raises(DataError, match=rf"given\.{kind}"):
                held(pack(tmp_path, {name: b"1"}, kind))


@pytest.mark.parametrize(("place", "value"), [(6, b"\1\0"), (8, b"\x63\0"), (22, b"\n\0\0\0")])
def test_a_zip_that_is_encrypted_unknown_or_lies_about_its_size(place, value, tmp_path):
    path = pack(tmp_path, {"a.png": bytes(2**24)})
    content = bytearray(path.read_bytes())
    for start in (content.index(b"PK\3\4") + place, content.index(b"PK\1\2") + 2 + place):
        content[start : start + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"given\.zip"):
        held(path)


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_a_bomb_that_is_larger_than_the_disk(kind, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(DataError, match=r"given\..* unpacks to 4194304 bytes"):
        held(pack(tmp_path, {"a.png": bytes(2**22)}, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_or_damaged_archive_is_an_error_or_what_it_was(kind, tmp_path):
    path, draws, errors = pack(tmp_path, FILES, kind), random.Random(0), []
    whole = path.read_bytes()
    variants = [bytearray(whole[:length]) for length in range(0, len(whole) - 1, len(whole) // 25)]
    for count in 25 * (1, 1, 4, 4):
        variants.append(bytearray(whole))
        for _ in range(count):
            variants[-1][draws.randrange(len(whole))] = draws.randrange(256)
    for variant in variants:
        path.write_bytes(variant)
        try:
            assert {*held(path).values()} <= {*FILES.values()} or kind == "tar"  # which has no sums
        except DataError as error:
            errors.append(str(path) in str(error))
    assert errors.count(True) == len(errors) > (5 if kind == "tar" else 60)


def test_what_is_no_archive_and_what_goes_wrong_inside_of_one(tmp_path):
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(5000), random.Random(0).randbytes(3000)):
        (tmp_path / "given").write_bytes(content)
        with pytest.raises(DataError, match=r"given is neither a folder nor a whole \.zip or \.tar"):
            held(tmp_path / "given")
    path = pack(tmp_path, INSIDE)
    with pytest.raises(DataError) as failure, unpacked(path) as folder:
        raise DataError(f"{folder / 'a.png'} is odd")
    assert str(failure.value) == f"{path}/x/y/a.png is odd"
