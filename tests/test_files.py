"""Writing: complete files or none, and over nothing that is not ours."""

import os
import threading
from pathlib import Path

import pytest

from sanet import files
from sanet.structures import SanetError, UsageError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    return tmp_path


def write(path, text, **options):
    with files.written(Path(path), **options) as aside:
        aside.write_text(text)


def names(folder="out"):
    return {path.name for path in Path(folder).iterdir()}


@pytest.mark.parametrize("kind", ["file", "link", "broken link", "folder", "pipe", "file above"])
def test_what_is_not_ours_is_refused(place, kind):
    path = Path("out/a/page.html") if kind == "file above" else Path("out/page.html")
    if kind == "file above":
        Path("out/a").write_text("mine")
    elif kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        Path("mine").write_text("mine")
        path.symlink_to(place / ("mine" if kind == "link" else "nothing"))
    if kind == "broken link":  # leads to a place where nothing is
        write(path, "ours")
        assert Path("nothing").read_text() == "ours"
        return
    before = names()
    with pytest.raises(UsageError, match=r"--here: .*out/"):
        write(path, "ours", option="--here")
    assert names() == before


def test_what_we_wrote_is_replaced_until_somebody_changes_it(place):
    path = Path("out/page.html")
    for text in ("first", "second", "first"):
        write(path, text)
        assert path.read_text() == text
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"out/page\.html"):
        write(path, "third")
    path.write_text("second")  # as it was once
    write(path, "third")
    path.rename("out/other.html")
    with pytest.raises(UsageError, match=r"out/other\.html"):  # the same content, but under another name
        write("out/other.html", "fourth")


def test_an_input_is_never_the_output(place):
    write("out/page.html", "ours")
    Path("link").symlink_to(place / "out/page.html")
    with pytest.raises(UsageError, match="is read by the same command"):
        files.require_own(Path("link"), inputs=["out/page.html"])


def test_sums_of_many_files_are_kept_in_one_folder(place):
    for path in (Path("out/a"), Path("out/b/c")):
        with files.beside(path) as aside:
            aside.write_text("ours")
        files.accept(path, root=Path("out"))
    assert names() == {"a", "b", files.SUMS}
    assert names("out/b") == {"c"}
    files.require_own(Path("out/a"), Path("out/b/c"), root=Path("out"))
    with pytest.raises(UsageError):
        files.require_own(Path("out/b/c"))


def test_a_torn_line_of_the_list_hurts_nobody(place):
    write("out/a", "a")
    with Path("out", files.SUMS).open("a") as sums:
        sums.write("0123")
    write("out/b", "b")
    files.require_own(Path("out/a"), Path("out/b"))


def test_a_folder_takes_the_place_of_an_older_one_of_ours(place):
    for text in ("one", "two"):
        with files.written_folder(Path("out/model")) as aside:
            (aside / "weights").write_text(text)
            (aside / text).write_text(text)
        assert names("out/model") == {"weights", text}
    assert names() == {"model", files.SUMS}
    Path("out/model/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"out/model/notes\.txt"), files.written_folder(Path("out/model")) as aside:
        (aside / "weights").write_text("three")
    assert Path("out/model/weights").read_text() == "two"


def test_a_kill_before_the_last_step_leaves_the_place_ours(place, monkeypatch):
    path = Path("out/page.html")
    write(path, "first")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: os._exit(9))
        child = os.fork()
        if not child:
            write(path, "second")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert path.read_text() == "first"
    write(path, "third")
    assert path.read_text() == "third"
    assert names() == {"page.html", files.SUMS}


def broken_off(path, error):
    with files.replaced(path) as aside:
        aside.write_text("half")
        raise error


def test_an_error_leaves_what_was_there(place):
    for error, raised in ((OSError(28, "No space left on device"), SanetError), (KeyError("x"), KeyError)):
        with pytest.raises(raised):
            broken_off(Path("out/page.html"), error)
        assert names() == set()


def test_a_link_is_written_through_and_names_may_be_as_long_as_they_can(place):
    long = "x" * 255
    Path("out/link").symlink_to(place / long)
    for text in ("one", "two"):
        write("out/link", text)
    assert Path("out/link").is_symlink()
    assert Path(long).read_text() == "two"
    Path(long).write_text("changed")
    with pytest.raises(UsageError, match="--output: out/link"):
        write("out/link", "three")


def test_one_at_a_time_in_a_folder(place):
    with files.locked(Path("new/deep")):
        found = []

        def other():
            said = f"new/deep is in use by another run .process {os.getpid()} on"
            with pytest.raises(SanetError, match=said), files.locked(Path("new/deep")):
                pass
            found.append(True)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert found
    assert not Path("new").exists()  # what never began leaves nothing
    Path("file").touch()
    with pytest.raises(UsageError, match=r"--output: .*file"), files.locked(Path("file/deep")):
        pass
