"""Archives as careless and hostile people pack them: what they hold, or an error that names them; nothing is left."""

import io
import random
import shutil
import struct
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
    """An archive of a kind with these entries; ``extra`` goes first: name, type and target."""
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
    """What an archive holds, by name."""
    with unpacked(path) as folder:
        found = {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
    assert not folder.exists()
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
    assert held(pack(tmp_path, {}, "tar", ("round in a circle", tarfile.SYMTYPE, "."))) == {}
    same = {**FILES, "same.png": FILES["a.png"]}
    assert held(pack(tmp_path, FILES, "tar", ("same.png", tarfile.SYMTYPE, "a.png"))) == same
    packed = pack(tmp_path, FILES).read_bytes()
    assert held(pack(tmp_path, {**FILES, "last.zip": packed}, "tar")) == {**FILES, "last.zip": packed}
    with (tmp_path / "given.zip").open("wb") as file:
        file.write(b"#!")
        file.seek(LARGEST_FILE)  # which takes no room on the disk
        file.write(packed)
    assert held(tmp_path / "given.zip") == FILES


@pytest.mark.parametrize(
    ("kind", "name", "number", "target"),
    [
        ("tar", "q", tarfile.SYMTYPE, "../../given.tar"),
        ("tar", "q", tarfile.SYMTYPE, "/etc/passwd"),
        ("tar", "q", tarfile.LNKTYPE, "../../given.tar"),
        ("tar", "q", tarfile.LNKTYPE, "nothing"),
        ("tar", "q", tarfile.CHRTYPE, ""),
        ("tar", "q", tarfile.FIFOTYPE, ""),
        *((kind, name, tarfile.REGTYPE, "") for kind in ("zip", "tar") for name in ("../evil", "x/../../evil")),
        ("zip", "..\\evil", tarfile.REGTYPE, ""),
        *((kind, name, tarfile.REGTYPE, "") for kind in ("zip", "tar") for name in ("a" * 300, "a/" * 1500 + "b")),
    ],
)
def test_what_no_archive_may_hold(kind, name, number, target, tmp_path):
    with pytest.raises(DataError, match=rf"given\.{kind}"):
        held(
            pack(tmp_path, {name: b"1"}, kind) if kind == "zip" else pack(tmp_path, FILES, kind, (name, number, target))
        )


@pytest.mark.parametrize(("place", "value"), [(6, 1), (8, 99), (22, 10)])
def test_a_zip_that_is_encrypted_unknown_or_lies_about_its_size(place, value, tmp_path):
    path = pack(tmp_path, {"a.png": bytes(2**24)})
    content = bytearray(path.read_bytes())
    for start in (content.index(b"PK\3\4"), content.index(b"PK\1\2") + 2):
        struct.pack_into("<I" if place == 22 else "<H", content, start + place, value)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"given\.zip"):
        held(path)


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_a_bomb_is_refused_before_it_is_unpacked(kind, tmp_path, monkeypatch):
    usage, seen = shutil.disk_usage(tmp_path)._replace(free=2**20), []
    monkeypatch.setattr(shutil, "disk_usage", lambda place: seen.append([*place.iterdir()]) or usage)
    path = pack(tmp_path, {"a.png": bytes(2**22)}, kind)
    assert path.stat().st_size < 2**14
    with pytest.raises(DataError, match=r"given\..* unpacks to 4194304 bytes"):
        held(path)
    assert seen == [[]]


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
            errors.append(str(error))
    assert len(errors) > (5 if kind == "tar" else 60)
    assert all(str(path) in error for error in errors)


def test_what_is_no_archive_and_what_goes_wrong_inside_of_one(tmp_path):
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(5000), random.Random(0).randbytes(3000)):
        (tmp_path / "given").write_bytes(content)
        with pytest.raises(DataError, match=r"given is neither a folder nor a whole \.zip or \.tar"):
            held(tmp_path / "given")
    path = pack(tmp_path, INSIDE)
    with pytest.raises(DataError) as failure, unpacked(path) as folder:
        raise DataError(f"{folder / 'a.png'} is odd")
    assert str(failure.value) == f"{path}/x/y/a.png is odd"
