"""Films in and out: every frame labelled as it is alone, at its time, upright and whole; what is damaged is said."""

import csv
import json
import os
import struct
import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

import full_disk
import sanet
from sanet.cli.main import main
from sanet.config import OutputConfig
from sanet.data.decoding import DataError
from sanet.inference import films
from sanet.inference.journal import Job
from sanet.inference.predict import Engine, predict_collection
from sanet.inference.predictor import Predictor
from sanet.inference.ray_engine import Worker
from sanet.structures import UsageError

if find_spec("av") is None:
    if os.environ.get("CI"):
        raise ImportError("PyAV is missing: pip install 'sanet-segmentation[video]'")
    pytest.skip("needs PyAV: pip install 'sanet-segmentation[video]'", allow_module_level=True)
import av

TICK, COUNT = Fraction(1, 25), 12


@pytest.fixture
def place(collection):
    """The working directory, with a model and nothing but an image beside it."""
    for name in ("b.jpg", "deep/c.bmp", "notes.txt"):
        Path("photos", name).unlink()
    return collection


def pictures(count=COUNT, size=(64, 48), seed=0):
    """Blocks of colours with noise, another picture in every frame."""
    width, height = size
    rng = np.random.default_rng(seed)
    for _ in range(count):
        blocks = rng.integers(0, 200, (-(-height // 16), -(-width // 16), 3)).repeat(16, 0).repeat(16, 1)
        yield (blocks[:height, :width] + rng.integers(0, 24, (height, width, 3))).astype(np.uint8)


def write_film(path, frames=None, stamps=None, tick=TICK, codec="libx264", aspect=None, sound=0, options=None):
    """A film of arrays, with as many seconds of silence."""
    frames = [*(pictures() if frames is None else frames)]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "0", "g": "4"} if codec == "libx264" else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p" if codec != "ffv1" else "bgr0"
        stream.codec_context.time_base = tick
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
        for stamp, pixels in zip(stamps or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = stamp, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            add_silence(container, audio, sound)
    return path


def add_silence(container, stream, seconds):
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * seconds), np.int16), "s16", "mono")
    silence.sample_rate = 8000
    container.mux(stream.encode(silence))
    container.mux(stream.encode())


def decoded(path):
    """Pictures and times, by PyAV alone, with whatever is wrong left out; and the rate."""
    with av.open(str(path)) as container:
        found = []
        for packet in container.demux(container.streams.video[0]):
            try:
                found += [(frame.to_ndarray(format="rgb24"), frame.pts * frame.time_base) for frame in packet.decode()]
            except av.error.InvalidDataError:
                continue
        return [pixels for pixels, _ in found], [time for _, time in found], container.streams.video[0].average_rate


def predict(*inputs, outputs=OutputConfig(film_masks=True), batch=1, **options):
    return predict_collection(Engine("model", "cpu", outputs=outputs, batch=batch), inputs, "out", False, **options)


def lines():
    return [json.loads(each) for each in Path("out/predictions.jsonl").read_text().splitlines()]


def line(name):
    (found,) = [each for each in lines() if name in each["image"]]
    return found


def masks(name):
    with ZipFile(f"out/masks/{name}.zip") as archive:
        assert archive.namelist() == [f"{number + 1:06}.png" for number in range(len(archive.namelist()))]
        return [np.array(Image.open(BytesIO(archive.read(each)))) for each in archive.namelist()]


def table(name):
    with open(f"out/frames/{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.MOV", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.webm", "libvpx")],
)
def test_every_frame_is_labelled_as_it_is_alone(place, name, codec):
    frames, times, rate = decoded(write_film(name, codec=codec))
    assert len(frames) == COUNT
    assert predict(name) == (1, 0, [])
    predictor = Predictor("model", "cpu")
    expected = [predictor(frame) for frame in frames]
    assert len(np.unique(expected)) > 1
    assert np.array_equal(masks("a"), expected)
    overlays, shown, kept = decoded("out/overlays/a.mp4")
    assert (shown, kept) == (times, rate)
    for overlay, prediction in zip(overlays, expected, strict=True):
        wanted = np.asarray(prediction.overlay(legend=False)).astype(int)
        assert np.abs(overlay[:48, :64] - wanted).mean() < 8
        for color in predictor.labels.colors:
            assert (np.abs(overlay[:, 64:].astype(int) - color).max(axis=2) < 30).sum() > 50, "the legend"
    rows, labels = table("a"), predictor.labels.names
    assert [int(row["frame"]) for row in rows] == [*range(1, COUNT + 1)]
    assert [float(row["seconds"]) for row in rows] == pytest.approx([float(time) for time in times], abs=1e-6)
    shares = np.array([[(each.mask == index).mean() for index in range(len(labels))] for each in expected])
    assert np.array([[float(row[label]) for label in labels] for row in rows]) == pytest.approx(shares, abs=1e-6)
    said = line(name)
    assert said["count"] == COUNT
    assert [said["shares"].get(label, 0) for label in labels] == pytest.approx(shares.mean(axis=0), abs=1e-6)


def test_frames_in_batches_are_those_one_by_one(place):
    write_film("a.mkv")
    predict("a.mkv", batch=5)
    frames, _, _ = decoded("a.mkv")
    assert np.mean(np.array(masks("a")) == np.array(Predictor("model", "cpu")(frames))) > 0.999


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
@pytest.mark.parametrize(("name", "tick", "first"), [("a.mkv", 1000, 0), ("a.mp4", 90_000, 0), ("a.mp4", 90_000, 7)])
def test_frames_keep_their_times(place, monkeypatch, name, tick, first, encoder):
    """Of a variable rate, and where the first one is late; with either encoder."""
    monkeypatch.setattr(films, "ENCODERS", {encoder: films.ENCODERS[encoder]})
    times = [first + Fraction(ms, 1000) for ms in (0, 40, 50, 51, 200, 210, 700, 1000, 1500)]
    write_film(name, pictures(len(times)), [round(time * tick) for time in times], Fraction(1, tick))
    assert predict(name) == (1, 0, [])
    assert decoded("out/overlays/a.mp4")[1] == times
    assert [float(row["seconds"]) for row in table("a")] == pytest.approx([float(time) for time in times])
    with av.open("out/overlays/a.mp4") as made:
        assert made.streams.video[0].codec.name == {"libx264": "h264"}.get(encoder, encoder)
        assert made.duration / av.time_base == pytest.approx(1.54, abs=0.001)  # the last frame as long as it was


@pytest.mark.parametrize(
    ("a", "b", "c", "d"),
    [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)],
)
def test_a_film_that_says_so_is_turned_or_mirrored(place, a, b, c, d):
    """The matrix of ISO 14496-12, 6.2.2, in the track's header: (x, y) is shown at (ax + cy, bx + dy)."""
    content = bytearray(write_film(Path("a.mp4"), aspect=Fraction(4, 3)).read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    one = 2**16
    content[start : start + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 2**30)
    frames, _, _ = decoded("a.mp4")
    Path("a.mp4").write_bytes(content)
    assert predict("a.mp4") == (1, 0, [])
    rows, columns = np.indices((48, 64))
    to_column, to_row = a * columns + c * rows, b * columns + d * rows
    expected, predictor = [], Predictor("model", "cpu")
    for frame in frames:
        turned = np.zeros((*((64, 48) if a == 0 else (48, 64)), 3), np.uint8)
        turned[to_row - to_row.min(), to_column - to_column.min()] = frame
        expected.append(predictor(turned))
    assert np.array_equal(masks("a"), expected)
    with av.open("out/overlays/a.mp4") as made:
        stream = made.streams.video[0]
        assert stream.sample_aspect_ratio == (Fraction(3, 4) if a == 0 else Fraction(4, 3))
        assert next(made.decode(stream)).rotation == 0


@pytest.mark.parametrize("size", [(63, 47), (601, 401), (33, 300)])
def test_sides_of_an_odd_number_of_pixels_are_kept(place, size):
    """Without loss in, so that also the last row and column of the overlay can be compared."""
    frames = [*pictures(3, size)]
    write_film("a.mkv", frames, codec="ffv1")
    assert predict("a.mkv") == (1, 0, [])
    predictor, (width, height) = Predictor("model", "cpu"), size
    assert np.array_equal(masks("a"), [predictor(frame) for frame in frames])
    made, _, _ = decoded("out/overlays/a.mp4")
    for overlay, frame in zip(made, frames, strict=True):
        assert overlay.shape[0] % 2 == overlay.shape[1] % 2 == 0
        wanted = np.asarray(predictor(frame).overlay(legend=False)).astype(int)
        assert np.abs(overlay[:height, :width] - wanted).mean() < 10
        assert np.abs(overlay[:height, width - 1] - wanted[:, -1]).mean() < 40
        assert (overlay[height + 1 :, : width - 1] > 220).all(), "nothing but white below"


def test_sound_is_not_needed_and_left_out(place):
    """Three seconds of it, behind half a second of pictures: nothing is cut off."""
    write_film("a.mkv", sound=3)
    assert predict("a.mkv") == (1, 0, [])
    assert "warning" not in line("a.mkv")
    with av.open("out/overlays/a.mp4") as made:
        assert [stream.type for stream in made.streams] == ["video"]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mkv", "libx264", {}), ("a.webm", "libvpx", {}), ("a.avi", "mpeg4", {}), ("a.mp4", "libx264", "faststart")],
)
def test_what_can_be_read_of_a_film_that_is_cut_off_is_written_and_said(place, capsys, name, codec, options):
    path = write_film(Path(name), pictures(50), codec=codec, options={"movflags": options} if options else {})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    frames, _, _ = decoded(name)
    assert 3 < len(frames) < 45
    assert predict(name) == (1, 0, [])
    predictor = Predictor("model", "cpu")
    assert np.array_equal(masks("a"), [predictor(frame) for frame in frames])
    assert len(decoded("out/overlays/a.mp4")[0]) == len(table("a")) == line(name)["count"] == len(frames)
    said = capsys.readouterr().err
    assert name in said
    assert "cut off" in said
    assert str(len(frames)) in said
    assert line(name)["warning"] in said
    assert predict(name) == (0, 1, [])
    with pytest.raises(DataError, match=f"{name} is cut off"):
        assert len([*sanet.frames_of(name)]) == len(frames)


def test_behind_a_damaged_frame_the_film_goes_on(place, capsys):
    path = write_film(Path("a.mp4"), pictures(40))
    with av.open("a.mp4") as container:
        packets = [packet for packet in container.demux() if packet.size and not packet.is_keyframe]
        damaged = packets[10]
        start, size = damaged.pos, damaged.size
    content = bytearray(path.read_bytes())
    content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    frames, _, _ = decoded("a.mp4")
    assert len(frames) >= 39
    assert predict("a.mp4") == (1, 0, [])
    assert len(masks("a")) == len(frames)
    assert "damaged" in capsys.readouterr().err


def test_a_film_whose_frames_change_their_size_is_labelled_as_far_as_they_do_not(place):
    with av.open("a.webm", "w") as container:
        stream = container.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        later = av.CodecContext.create("libvpx", "w")
        later.width, later.height, later.pix_fmt, later.time_base = 96, 80, "yuv420p", TICK
        for encoder, size, first in ((stream, (64, 48), 0), (later, (96, 80), 5)):
            packets = []
            for number, pixels in enumerate(pictures(5, size)):
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = first + number, TICK
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode():
                packet.stream = stream
                container.mux(packet)
    assert [frame.shape for frame in decoded("a.webm")[0]] == [(48, 64, 3)] * 5 + [(80, 96, 3)] * 5
    assert predict("a.webm") == (1, 0, [])
    assert len(masks("a")) == 5
    assert "size" in line("a.webm")["warning"]


def write_sound_alone(path):
    with av.open(str(path), "w") as container:
        add_silence(container, container.add_stream("pcm_s16le", rate=8000, layout="mono"), 1)


def write_no_frame(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


def write_list(path):
    """Which FFmpeg would play, whatever its name is."""
    write_film(Path("other.mkv"))
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{Path('other.mkv').resolve()}\n#EXT-X-ENDLIST\n")


def write_beginning(path):
    """Without what an MP4 ends with."""
    path.write_bytes(write_film(path).read_bytes()[:2000])


def write_pipe(path):
    os.mkfifo(path)


HOSTILE = {
    "sound.mkv": write_sound_alone,
    "none.mkv": write_no_frame,
    "none.mp4": write_no_frame,
    "list.mp4": write_list,
    "cut.mp4": write_beginning,
    "empty.webm": lambda path: path.write_bytes(b""),
    "noise.avi": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "picture.mov": lambda path: Image.new("RGB", (64, 48)).save(path, "PNG"),
    "text.mp4": lambda path: path.write_text("ffconcat version 1.0\nfile other.mkv\n"),
    "pipe.mp4": write_pipe,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_film_is_named_and_the_rest_is_done(place, name):
    HOSTILE[name](Path(name))
    labelled, kept, (failure,) = predict("photos", name)
    assert (labelled, kept) == (1, 0)
    assert name in failure
    assert name in line(name)["error"] if name != "list.mp4" else True
    written = {path.name for path in Path("out").rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert written == {"a.png", "a.jpg", "predictions.jsonl"}
    assert not list(Path("out").rglob("*.partial"))


@pytest.mark.slow
def test_damaged_bytes_are_errors_or_fewer_frames_and_nothing_else(place):
    """Whatever bytes are changed; in a process of its own, since FFmpeg is not ours."""
    for name, codec in (("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx")):
        write_film(name, codec=codec)
    code = """
import numpy as np, sanet
from pathlib import Path
rng = np.random.default_rng(0)
for name in ("a.mp4", "a.avi", "a.webm"):
    whole = np.frombuffer(Path(name).read_bytes(), np.uint8)
    for _ in range(60):
        content = whole[: rng.integers(1, len(whole)) if rng.random() < 0.3 else None].copy()
        places = rng.integers(0, len(content) if rng.random() < 0.5 else min(len(content), 800), rng.integers(1, 9))
        content[places] = rng.integers(0, 256, len(places))
        Path(f"x{name[1:]}").write_bytes(content.tobytes())
        try:
            assert all(frame.ndim == 3 for frame in sanet.frames_of(f"x{name[1:]}"))
        except sanet.SanetError as error:
            assert f"x{name[1:]}" in str(error)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


def test_frames_of_more_pixels_than_memory_holds_are_refused(place, monkeypatch):
    write_film("a.mp4")
    monkeypatch.setattr(films, "MOST_PIXELS", 3000)
    assert "3000" in predict("a.mp4").failures[0]


def test_images_and_films_in_one_call(place, capsys):
    """Also of one name, as phones have them; what is done is kept, and only what was changed is made again."""
    for name in ("photos/a.mov", "photos/trip/b.mkv"):
        Path(name).parent.mkdir(exist_ok=True)
        write_film(name)
    assert predict("photos", outputs=OutputConfig()) == (3, 0, [])
    expected = ["../photos/a.mov", "../photos/a.png", "../photos/trip/b.mkv"]
    assert [each["image"] for each in lines()] == expected
    assert lines()[0]["overlay"] == "overlays/a.mp4"
    assert not Path("out/masks/a.zip").exists()
    assert np.array(Image.open("out/masks/a.png")).shape == (40, 50)
    assert predict("photos", outputs=OutputConfig()) == (0, 3, [])
    write_film("photos/trip/b.mkv", pictures(5))
    assert predict("photos", outputs=OutputConfig()) == (1, 2, [])
    assert len(table("trip/b")) == 5
    assert predict("photos") == (2, 1, []), "masks of the films have to be made"
    assert len(masks("trip/b")) == 5
    write_film("photos/a.mp4")
    with pytest.raises(UsageError, match=r"a\.mp4.*a\.mov|a\.mov.*a\.mp4"):
        predict("photos")


def test_a_film_that_somebody_made_is_not_replaced(place):
    write_film("a.mkv")
    Path("out/overlays").mkdir(parents=True)
    Path("out/overlays/a.mp4").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"out/overlays/a\.mp4"):
        predict("a.mkv")
    assert Path("out/overlays/a.mp4").read_bytes() == b"mine"


def test_what_is_written_of_a_film_can_be_chosen(place):
    write_film("a.mkv")
    assert predict("a.mkv", outputs=OutputConfig(overlays=False)) == (1, 0, [])
    assert not Path("out/overlays").exists()
    assert len(table("a")) == COUNT
    for name in ("probabilities", "confidence", "regions"):
        with pytest.raises(UsageError, match=f"a.mkv is a film.*{name}"):
            predict("photos", "a.mkv", outputs=OutputConfig(**{name: True}))
    predictor, (frames, _, _) = Predictor("model", "cpu"), decoded("a.mkv")
    unsure = float(np.median(predictor(frames[0]).confidence))
    assert predict("a.mkv", outputs=OutputConfig(film_masks=True, threshold=unsure)) == (1, 0, [])
    expected = [predictor(frame, threshold=unsure) for frame in frames]
    assert 0 < np.mean(np.array(expected) == 255) < 1
    assert np.array_equal(masks("a"), expected)


def test_without_pyav_films_fail_and_name_the_extra(place, monkeypatch):
    write_film("a.mkv")
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "av", None)
        labelled, _, (failure,) = predict("photos", "a.mkv")
        assert labelled == 1
        assert "a.mkv" in failure
        assert "sanet-segmentation[video]" in failure
        with pytest.raises(sanet.SanetError, match=r"sanet-segmentation\[video\]"):
            next(sanet.frames_of("a.mkv"))
    assert predict("a.mkv", "photos/a.png") == (1, 1, []), "it is tried again"


def test_frames_from_python(place):
    """One by one: nothing is read before it is asked for."""
    frames, _, _ = decoded(write_film("a.mkv"))
    found = sanet.frames_of("a.mkv")
    for frame, expected in zip(found, frames, strict=True):
        assert np.array_equal(frame, expected)
    predictor = Predictor("model", "cpu", batch=1)
    first = next(predictor(sanet.frames_of(Path("a.mkv"))))
    assert np.array_equal(first, predictor(frames[0]))


def test_the_command_line(place, capsys):
    write_film("a.mkv")
    settings = ["--model", "model", "--device", "cpu", "--output", "out"]
    assert main(["predict", "a.mkv", *settings]) == 0
    said = capsys.readouterr()
    assert "\noverlays, frames and predictions.jsonl" in f"\n{said.out}"
    assert said.err == "", "no bar where it cannot be redrawn"
    assert main(["predict", "a.mkv", "photos", *settings, "--film_masks", "true"]) == 0
    assert "masks, overlays, frames and" in capsys.readouterr().out
    assert len(masks("a")) == COUNT
    assert main(["predict", "a.mkv", *settings, "--format", "labelme"]) == 2
    assert "film" in capsys.readouterr().err


def test_progress_is_in_frames(place, capsys):
    write_film("a.mkv")
    predict_collection(Engine("model", "cpu"), ["a.mkv"], "quiet", progress=False)
    assert capsys.readouterr().err == ""
    predict_collection(Engine("model", "cpu"), ["a.mkv"], "out", progress=True)
    assert "a.mkv: " in (said := capsys.readouterr().err)
    assert " frames" in said


def test_a_worker_of_a_cluster_labels_films_as_well(place):
    write_film("a.mkv")
    engine = Engine("model", "cpu")
    job = Job("a.mkv", {"frames": "far/frames/a.csv", "overlay": "far/overlays/a.mp4"})
    worker = Worker(("model", "cpu", engine.predictor.inference, OutputConfig()), engine.fingerprint, 1, str(place))
    predict("a.mkv", outputs=OutputConfig())
    assert worker.label(job)["shares"] == line("a.mkv")["shares"]


@pytest.mark.slow
@pytest.mark.parametrize("most", [900, 12_000])
def test_a_full_disk_is_said_in_one_line_and_leaves_no_part(place, most):
    """Where a file cannot grow beyond some bytes: a table or an overlay."""
    write_film("a.mkv", pictures(50))
    full_disk.assert_said_in_one_line(
        most, "predict", "a.mkv", "--model", "model", "--output", "out", "--device", "cpu"
    )
    assert predict("a.mkv") == (1, 0, [])
