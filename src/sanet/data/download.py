"""Downloading the public data sets: resumable, verified before anything is unpacked, and repeatable.

Below one root::

    VOCdevkit/VOC2012, VOC2010   benchmark_RELEASE/dataset   trainval, labels.txt, 59_labels.txt
    coco/train2017, val2017, annotations
    archives/   what was downloaded, and NAME.unpacked, the SHA-256 of an archive whose parts are in their places

A download goes on in ``NAME.part``; ``NAME.part.json`` keeps what the server called that version of the file, and a
server that has another one by now sends all of it. The sum decides what is accepted, not the server.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError

from filelock import FileLock, Timeout
from tqdm import tqdm

from sanet.data.archives import (
    TABLE,
    Archive,
    Collection,
    DownloadError,
    Table,
    check_url,
    difference,
    in_words,
    sums,
    verify,
    with_mirrors,
)
from sanet.data.unpack import check_room, unpack, write, writing
from sanet.files import LOCK, refuse, replaced
from sanet.structures import UsageError, choose

ARCHIVES = "archives"
TIMEOUT = 60.0  # seconds without a byte
PAUSES = (1.0, 4.0, 15.0)  # seconds before asking again, as long as nothing comes
BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses that may pass
CHUNK = 1 << 18


class MirrorError(DownloadError):
    """What is wrong with one address, for good."""


class Cut(OSError):
    """A connection that ended early, or a file that changed: ask again."""


def download(
    name: str,
    root: str | Path,
    archives: Sequence[str | Path] = (),
    mirrors: str | Path | None = None,
    progress: bool = True,
    table: Table = TABLE,
) -> None:
    """Put a public data set below a root; what is there already stays, and what was interrupted goes on.

    Args:
        name: the data set, a key of the table.
        root: what data.root will be.
        archives: files that are there already, used instead of downloading those of the same name; never changed.
        mirrors: YAML file with other addresses or sums, ``file name: {urls: [...], sha256: ...}``.
        progress: show progress bars.
        table: what there is to download.

    Raises:
        UsageError: no such data set or archive, a mirrors file that cannot be, or a file that would be replaced.
        DownloadError: no mirror has the file, a sum is wrong, no room, or another download is running there.
    """
    root = Path(root)
    table = with_mirrors(table, Path(mirrors)) if mirrors is not None else table
    collection = table[choose("data set", name, sorted(table))]
    given = _given(collection, [Path(path) for path in archives])
    folder = root / ARCHIVES
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        print(f"{name}: {collection.terms}", flush=True)
        missing = [archive for archive in collection.archives if not _is_unpacked(archive, root)]
        for part in (_part(folder, archive) for archive in missing):
            if _size(part) and not _notes_path(part).is_file():
                raise refuse(part, "--root")  # as of a browser that is at it
        _announce(name, missing, given, folder)
        failures = []
        for archive in missing:
            try:
                path = given.get(archive.name)
                path, found = (path, sums(path, progress)) if path else _obtained(archive, folder, progress)
            except MirrorError as error:
                failures.append(str(error))  # the others may be had
                continue
            _install(archive, path, found, root, progress)
        if failures:
            raise DownloadError("\n".join(failures))
        if collection.finish:
            collection.finish(root, progress)
    places = [str(place) for archive in collection.archives for place in archive.targets(root)]
    print(f"{name} is there: {', '.join(dict.fromkeys(places))}")
    if any((folder / archive.name).is_file() for archive in collection.archives):
        print(f"the downloaded archives stay in {folder} and may be deleted")


def _given(collection: Collection, paths: Sequence[Path]) -> dict[str, Path]:
    names = sorted(archive.name for archive in collection.archives)
    given: dict[str, Path] = {}
    for path in paths:
        choose("archive", path.name, names)
        if not path.is_file():
            raise UsageError(f"{path} is not a file")
        if path.name in given:
            raise UsageError(f"{path} and {given[path.name]} are the same archive; give one of them")
        given[path.name] = path
    return given


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder: a second download into it is refused."""
    lock = FileLock(folder / LOCK, timeout=0)
    with writing(folder):
        try:
            lock.acquire()
        except Timeout:
            raise DownloadError(f"another download into {folder.parent} is running; wait until it is done") from None
    try:
        yield
    finally:
        lock.release()


def _announce(name: str, missing: Sequence[Archive], given: dict[str, Path], folder: Path) -> None:
    """Say what is going to happen, and refuse where the room does not even do for that."""
    needed = 0
    for archive in missing:
        path, part = given.get(archive.name, folder / archive.name), _part(folder, archive)
        left = 0 if path.is_file() else max(0, archive.size - _size(part))
        source = f"{in_words(left)} to download" if left else f"from {path}"
        print(f"  {archive.name}: {source}", flush=True)
        needed += left + archive.size  # pictures are compressed already: unpacked they take as much again
    if missing:
        check_room(folder, needed, f"{name}, with its archives,")
    else:
        print("  everything was unpacked before: nothing to download")


def _is_unpacked(archive: Archive, root: Path) -> bool:
    try:
        found = _marker(archive, root).read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return found == (archive.sha256 or found) and all(place.exists() for place in archive.targets(root))


def _marker(archive: Archive, root: Path) -> Path:
    return root / ARCHIVES / f"{archive.name}.unpacked"


def _install(archive: Archive, path: Path, found: tuple[str, str], root: Path, progress: bool) -> None:
    verify(archive, path, found)
    if not archive.sha256:
        print(f"  {archive.name}: checked by its MD5; no SHA-256 of it is published", flush=True)
    unpack(archive, path, root, progress)
    with replaced(_marker(archive, root)) as draft:
        draft.write_text(f"{found[0]}\n", encoding="utf-8")


def _obtained(archive: Archive, folder: Path, progress: bool) -> tuple[Path, tuple[str, str]]:
    """The archive in the folder, downloaded unless it is there and right; and its sums."""
    path = folder / archive.name
    if path.is_file():
        found = sums(path, progress)
        wrong = difference(archive, found)
        if not wrong:
            return path, found
        if os.path.lexists(aside := folder / f"{archive.name}.wrong"):
            raise refuse(aside, "--root")
        print(f"  {path}: {wrong}; renamed to {aside.name}, and downloaded anew", flush=True)
        with writing(aside):
            os.replace(path, aside)
    problems = []
    part = _part(folder, archive)
    # The mirror that a part is from goes on with it; another one may have to start anew.
    begun = _notes(part).get("url")
    for url in sorted(archive.urls, key=lambda url: url != begun):
        try:
            _fetch(url, archive, part, progress)
        except MirrorError as error:
            problems.append(f"  {url}: {error}")
            continue
        found = sums(part, progress)
        if wrong := difference(archive, found):
            _forget(part)
            problems.append(f"  {url}: {wrong}")
            continue
        with writing(path):
            os.replace(part, path)
            _forget(part)
        return path, found
    raise MirrorError(
        f"{archive.name} cannot be downloaded:\n" + "\n".join(problems) + "\nTry again later, or give the file with "
        f"--archive, or another address with --mirrors: `{archive.name}: {{urls: [...]}}`"
    )


def _fetch(url: str, archive: Archive, part: Path, progress: bool) -> None:
    """Ask until all of the file is in ``part``; give up when nothing comes any more."""
    furthest, pauses = _size(part), list(PAUSES)
    while True:
        try:
            return _read_on(url, archive, part, progress)
        except HTTPError as error:
            problem = f"status {error.code}, {error.reason}"
            if error.code not in BUSY:
                raise MirrorError(problem) from error
        except (HTTPException, OSError) as error:
            problem = str(error) or type(error).__name__
            if isinstance(error, URLError):
                problem = str(error.reason)
                if isinstance(error.reason, FileNotFoundError):
                    raise MirrorError(problem) from error
        except ValueError as error:  # an address that urllib does not understand
            raise MirrorError(str(error)) from error
        if _size(part) > furthest:
            furthest, pauses = _size(part), list(PAUSES)
        if not pauses:
            raise MirrorError(f"{problem}; nothing more came when asked again")
        time.sleep(pauses.pop(0))


def _read_on(url: str, archive: Archive, part: Path, progress: bool) -> None:
    """One connection: what is missing of the file, or all of it where the server has it otherwise.

    Raises:
        Cut: it ended early; what came is kept.
        MirrorError: it is not the file at all.
    """
    check_url(url)
    begun, version = _size(part), _notes(part).get("version")
    if begun and not version:
        begun = 0  # nothing to tell by whether the file is still the same
    ranges = {"Range": f"bytes={begun}-", "If-Range": str(version)} if begun else {}
    asked = request.Request(url, headers={"User-Agent": "sanet", "Accept-Encoding": "identity", **ranges})
    try:
        response = _opener().open(asked, timeout=TIMEOUT)
    except HTTPError as error:
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if error.code != 416 or not begun:
            raise
        if whole and int(whole[1]) == begun:
            return
        _forget(part)
        raise Cut("the part that was there is longer than the file") from error
    with response:
        resumed = response.status == 206
        if resumed:
            total = _total(response.headers, begun, version, part)
        else:
            begun, total = 0, _number(response.headers.get("Content-Length"))
        most = 2 * archive.size + (1 << 20)
        if total is not None and total > most:
            _forget(part)
            raise MirrorError(f"it has {in_words(total)}, and should have {in_words(archive.size)}")
        with writing(part, (total or archive.size) - begun):
            sink = part.open("ab" if resumed else "wb", buffering=0)
            if not resumed:
                notes = {"url": url, "version": _version(response.headers)}
                _notes_path(part).write_text(json.dumps(notes), encoding="utf-8")
        words: dict[str, Any] = {"unit": "B", "unit_scale": True, "disable": not progress}
        bar = tqdm(desc=archive.name, total=total, initial=begun, **words)
        with sink, bar:
            reached = begun
            while chunk := response.read1(CHUNK):
                reached += len(chunk)
                if reached > most:
                    _forget(part)
                    raise MirrorError(f"it goes on after {in_words(most)}, and should have {in_words(archive.size)}")
                with writing(part, (total or archive.size) - reached + len(chunk)):
                    write(sink, chunk)
                bar.update(len(chunk))
    if total is not None and reached < total:
        raise Cut(f"cut after {reached} of {total} bytes")


def _total(headers: Any, begun: int, version: object, part: Path) -> int | None:
    """The size of the file whose rest is coming, if it is the rest of the same file."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if not begun or not span or int(span[1]) != begun or _version(headers) not in (version, None):
        _forget(part)
        raise Cut("the server sent a part of the file that was not asked for")
    return _number(span[2])


def _version(headers: Any) -> str | None:
    """What tells this version of the file from another: a strong ETag, else the time of its last change."""
    tag = str(headers.get("ETag", "W/"))
    changed = headers.get("Last-Modified")
    return tag if not tag.startswith("W/") else str(changed) if changed else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _opener() -> request.OpenerDirector:
    """Opens http, https and file; neither ftp nor data. A redirection may lead to the first two."""
    opener = request.OpenerDirector()
    opens = (request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler, request.FileHandler)
    fails = (request.UnknownHandler, request.HTTPDefaultErrorHandler, request.HTTPErrorProcessor)
    for handler in (*opens, request.HTTPRedirectHandler, *fails):
        opener.add_handler(handler())
    return opener


def _part(folder: Path, archive: Archive) -> Path:
    return folder / f"{archive.name}.part"


def _notes_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _notes(part: Path) -> dict[str, Any]:
    try:
        notes = json.loads(_notes_path(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes_path(part).unlink(missing_ok=True)
