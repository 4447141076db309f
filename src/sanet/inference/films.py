"""Films in and out through PyAV (extra ``video``), frame by frame, so that their length costs no memory."""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile, ZipInfo

import numpy as np
from tqdm import tqdm

from sanet.config import OutputConfig
from sanet.data.decoding import UNREADABLE, DataError
from sanet.files import beside
from sanet.inference.drawing import RGBImage, shares, with_legend
from sanet.inference.journal import Job, Line, version
from sanet.inference.predictor import Predictor
from sanet.structures import LabelSet, first_line

# FFmpeg goes by what is in a file: a playlist, however it is called, would have it open other files and addresses.
DEMUXERS = "avi,matroska,mov,webm"
MOST_PIXELS = 2**27  # of a frame
# The first that there is, in a quality whose losses are hardly seen.
ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "20", "bf": "0"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(3 * 118)},
}
BT709, LIMITED = 1, 1  # how colours become numbers


class Frame(NamedTuple):
    """A frame, and what its film says of itself."""

    pixels: RGBImage  # turned as the film says
    stamp: int  # when it is shown, in ticks; later than the frame before
    duration: int  # in ticks
    tick: Fraction  # seconds
    rate: Fraction  # frames a second, on average
    length: int  # frames, or 0
    aspect: Fraction | None  # width of a pixel by its height


def frames_of(path: str | Path) -> Iterator[RGBImage]:
    """The frames of a film, (H, W, 3) uint8 RGB, upright, one after the other.

    Raises:
        DataError: it cannot be read; or, behind the frames that can be, not all of it.
    """
    return (frame.pixels for frame in _frames(Path(path)))


def length_of(path: Path) -> int:
    """How many frames a film says it has; 0 where it does not, or cannot be read."""
    with suppress(DataError):
        return next(_frames(path)).length
    return 0


def _av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise DataError(f"{path}: films need PyAV: pip install 'sanet-segmentation[video]'") from error
    return av


def _frames(path: Path) -> Iterator[Frame]:
    av = _av(path)
    if not path.is_file():  # a pipe may never end
        raise DataError(f"{path} is no file")
    options = {"format_whitelist": DEMUXERS}
    try:
        with path.open("rb") as file, av.open(file, "r", options=options, metadata_errors="replace") as container:
            yield from _decoded(av, container, path)
    except (av.FFmpegError, *UNREADABLE) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{path} cannot be read as a film ({reason}); it is cut off, damaged or none") from error


def _decoded(av: Any, container: Any, path: Path) -> Iterator[Frame]:
    cover = av.stream.Disposition.attached_pic
    stream = next((each for each in container.streams.video if not each.disposition & cover), None)
    if stream is None or not 0 < stream.width * stream.height <= MOST_PIXELS:
        raise DataError(f"{path} has no video, or none with frames of at most {MOST_PIXELS} pixels")
    tick, rate = stream.time_base, stream.average_rate or stream.guessed_rate or Fraction(25)
    step, stamp, damaged, end = max(1, round(1 / (rate * tick))), None, 0, 0.0
    for packet in container.demux():  # of sound too, which says how far the file goes
        if (begin := packet.dts if packet.pts is None else packet.pts) is not None:
            end = max(end, float((begin + (packet.duration or 0)) * packet.time_base))
        try:
            frames = packet.decode() if packet.stream.index == stream.index else ()
        except av.error.InvalidDataError:
            damaged += 1
            continue
        for frame in frames:
            damaged += frame.is_corrupt
            shown = frame.pts if frame.pts is not None else 0 if stamp is None else stamp + step
            stamp = shown if stamp is None else max(shown, stamp + 1)
            # Where (x, y) is shown: at (ax + cy, bx + dy).
            matrix, aspect = frame.side_data.get("DISPLAYMATRIX"), stream.sample_aspect_ratio
            a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5] if matrix else (1, 0, 0, 0, 1)
            pixels = frame.to_ndarray(format="rgb24")
            if abs(b) > abs(a):
                pixels, aspect, a, d = pixels.swapaxes(0, 1), 1 / aspect if aspect else None, c, b
            pixels = np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
            yield Frame(pixels, stamp, frame.duration or step, tick, rate, stream.frames, aspect)
    # An AVI says how many frames it has; how long one that is cut off takes, FFmpeg guesses from its size.
    said = stream.frames / rate if container.format.name == "avi" else Fraction(container.duration or 0, av.time_base)
    if end < said - 2 / rate - 0.1:
        raise DataError(f"{path} is cut off after {end:.1f} of {float(said):.1f} seconds")
    if damaged:
        raise DataError(f"{path} has damaged frames, {damaged} in all")


@contextmanager
def _film(place: Path, path: Path, first: Frame, labels: LabelSet) -> Iterator[Callable[[RGBImage, Frame], None]]:
    """A film of pictures beside a legend of all classes, in the time of another; what adds one."""
    av = _av(path)
    drawn = np.array(with_legend(np.zeros_like(first.pixels), labels, None))
    # H.264 needs sides of an even number of pixels.
    canvas = np.pad(drawn, [*((0, side % 2) for side in drawn.shape[:2]), (0, 0)], constant_values=255)
    encoder = next(name for name in ENCODERS if name in av.codecs_available)
    try:
        with place.open("wb") as file, av.open(file, "w", format="mp4") as container:
            stream = container.add_stream(encoder, rate=first.rate, options=ENCODERS[encoder])
            stream.height, stream.width = canvas.shape[:2]
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.time_base = first.tick if encoder == "libx264" else Fraction(1, 60_000)  # MPEG-4 counts in 16 bits
            context.sample_aspect_ratio = first.aspect or Fraction(1)
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED
            context.flags |= av.codec.context.Flags.frame_duration

            def add(picture: RGBImage, source: Frame) -> None:
                canvas[: len(picture), : picture.shape[1]] = picture
                frame = av.VideoFrame.from_ndarray(canvas, "rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED)
                frame.pts, frame.duration, frame.time_base = source.stamp, source.duration, source.tick
                container.mux(stream.encode(frame))

            yield add
            container.mux(stream.encode())
    except av.FFmpegError as error:
        size = f"{canvas.shape[1]} x {canvas.shape[0]}"
        raise DataError(f"{path}: no overlay of {size} pixels can be encoded ({first_line(error)})") from error


def label_film(predictor: Predictor, job: Job, outputs: OutputConfig, progress: bool = False) -> Line:
    """Label a film, and write its files beside their places; what ``predictions.jsonl`` says of it.

    Of one that is damaged, what can be read is labelled, and the line has a warning.

    Raises:
        SanetError: they cannot be written, which is not the film's fault.
    """
    path, labels, total, count = Path(job.image), predictor.labels, Counter[str](), 0
    waiting, trouble = deque[Frame](), list[str]()

    def pixels() -> Iterator[RGBImage]:
        size = None
        try:
            for frame in _frames(path):
                if frame.pixels.shape != (size := size or frame.pixels.shape):
                    raise DataError(f"{path} changes the size of its frames")
                waiting.append(frame)
                yield frame.pixels
        except DataError as error:  # what came before it counts
            trouble.append(str(error))

    try:
        line: Line = {**version(job.image), "image": job.image}
        with ExitStack() as stack:
            files = {kind: stack.enter_context(beside(Path(file))) for kind, file in job.files.items()}
            masks = stack.enter_context(ZipFile(files["mask"], "w")) if "mask" in files else None
            table = csv.writer(stack.enter_context(files["frames"].open("w", encoding="utf-8", newline="")))
            table.writerow(["frame", "seconds", *labels.names])
            bar = stack.enter_context(tqdm(desc=path.name, unit=" frames", disable=not progress, leave=False))
            for count, found in enumerate(predictor(pixels(), threshold=outputs.threshold), 1):
                frame, parts = waiting.popleft(), shares(found.mask, labels)
                if count == 1:
                    bar.total = frame.length or None
                    film = outputs.overlays and stack.enter_context(_film(files["overlay"], path, frame, labels))
                if film:
                    film(np.asarray(found.overlay(legend=False)), frame)
                if masks:
                    masks.writestr(ZipInfo(f"{count:06}.png"), found.encoded("mask"))
                seconds = f"{float(frame.stamp * frame.tick):.6f}"
                table.writerow([count, seconds, *(f"{parts.get(name, 0):.6f}" for name in labels.names)])
                total.update(parts)
                bar.update()
            if not count:
                raise DataError(trouble[0] if trouble else f"{path} has no frames")
    except (DataError, OSError) as error:
        return {"image": job.image, "error": str(error) if isinstance(error, DataError) else f"{path}: {error}"}
    line |= {"count": count, "shares": {name: share / total.total() for name, share in total.most_common()}}
    return line | ({"warning": f"{trouble[0]}; the {count} frames that can be read are labelled"} if trouble else {})
