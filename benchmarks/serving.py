"""How soon `sanet serve` answers 1, 4 and 16 clients, and how many images a second beside the bare engine.

python benchmarks/serving.py OUTPUT.json   # needs the extra `serve`

The bundled model at the images' own size; its clients run on the same machine, in this process. The bare engine is a
`Predictor` in a loop over the same files in the same batches: decode, label, encode, before and after each round, as
others may use the machine. Every answer is compared with what the engine says of that image by itself.
"""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from statistics import harmonic_mean, median, quantiles
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import sanet

IMAGES, SIZE, BATCH = 32, (160, 120), 8
CLIENTS, ROUNDS, EACH = (1, 4, 16), 5, 400  # of each round, requests from the most clients; 2,000 in all
FEW = 100  # requests from fewer
SAME = 0.999  # of the pixels; in a batch, sums are added up in another order


def cut_out() -> list[bytes]:
    """Parts of the two streets that come with the package, as PNGs; every one is another."""
    random = np.random.default_rng(0)
    streets = sorted((Path(sanet.__file__).parent / "demo" / "examples").glob("*.jpg"))
    found = []
    for number in range(IMAGES):
        with Image.open(streets[number % len(streets)]) as street:
            left, top = (int(random.integers(0, whole - part)) for whole, part in zip(street.size, SIZE, strict=True))
            stream = BytesIO()
            street.crop((left, top, left + SIZE[0], top + SIZE[1])).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def bare(predictor: sanet.Predictor, files: list[bytes], count: int) -> float:
    """Images a second of the engine in a loop."""
    start = perf_counter()
    for first in range(0, count, BATCH):
        batch = [Image.open(BytesIO(files[number % IMAGES])) for number in range(first, min(first + BATCH, count))]
        for prediction in predictor(batch):
            prediction.encoded("mask")
    return count / (perf_counter() - start)


class Client:
    """Calls the server on one connection, and keeps count of what is wrong."""

    def __init__(self, address: str, files: list[bytes], masks: NDArray[np.uint8]) -> None:
        self.connection = http.client.HTTPConnection(address, timeout=60)
        self.files, self.masks = files, masks
        self.seconds: list[float] = []
        self.wrong = self.lost = 0

    def ask(self, numbers: Iterable[int]) -> None:
        """One request for each image."""
        for number in numbers:
            start = perf_counter()
            try:
                self.connection.request("POST", "/predict", self.files[number % IMAGES])
                answer = self.connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                self.lost += 1
                continue
            self.seconds.append(perf_counter() - start)
            self.wrong += answer.status != 200 or not self.is_of(number % IMAGES, content)

    def is_of(self, number: int, content: bytes) -> bool:
        """Whether a mask is that of this image, and of no other."""
        alike = (self.masks == np.array(Image.open(BytesIO(content)))).mean(axis=(1, 2))
        return bool(alike[number] >= SAME and alike.argmax() == number)


def load(address: str, files: list[bytes], masks: NDArray[np.uint8], clients: int, count: int) -> dict[str, Any]:
    """What clients who ask without a pause meet."""
    callers = [Client(address, files, masks) for _ in range(clients)]
    start = perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(lambda place: callers[place].ask(range(place, count, clients)), range(clients)))
    took = perf_counter() - start
    seconds = [each for caller in callers for each in caller.seconds]
    return {
        "clients": clients,
        "answered": len(seconds),
        "lost": sum(caller.lost for caller in callers),
        "wrong": sum(caller.wrong for caller in callers),
        "median_ms": round(1000 * median(seconds), 1),
        "p95_ms": round(1000 * quantiles(seconds, n=20)[-1], 1),
        "images_per_s": round(count / took, 2),
    }


def memory(process: subprocess.Popen[str]) -> int:
    """Resident memory in MiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def main() -> None:
    """Serve, ask, print and write."""
    files = cut_out()
    predictor = sanet.Predictor("streets", "cpu", sanet.InferenceConfig(shorter_side=0), BATCH)
    masks = np.stack([predictor(Image.open(BytesIO(file))).mask for file in files])
    assert len({mask.tobytes() for mask in masks}) == IMAGES
    options = ["--port", "0", "--device", "cpu", "--shorter_side", "0", "--batch", str(BATCH), "--engine", "torch"]
    command = [sys.executable, "-m", "sanet", "serve", "streets", *options]
    found: dict[str, Any] = {"image": SIZE, "batch": BATCH, "latency": [], "rounds": [], "memory_mib": []}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            for _ in ("the engine", "the model"):
                server.stdout.readline()
            address = server.stdout.readline().split("http://")[1].split(",")[0]
            load(address, files, masks, 4, 4 * IMAGES)  # to warm up
            for clients in CLIENTS[:-1]:
                found["latency"].append(load(address, files, masks, clients, FEW))
            for _ in range(ROUNDS):
                before = bare(predictor, files, EACH // 4)
                answers = load(address, files, masks, CLIENTS[-1], EACH)
                alone = round(harmonic_mean([before, bare(predictor, files, EACH // 4)]), 2)
                ratio = round(answers["images_per_s"] / alone, 3)
                found["rounds"].append({**answers, "bare_images_per_s": alone, "ratio": ratio})
                sleep(1)
                found["memory_mib"].append(memory(server))
        finally:
            server.terminate()
    found["ratio"] = median(each["ratio"] for each in found["rounds"])
    every = [*found["latency"], *found["rounds"]]
    found |= {name: sum(each[name] for each in every) for name in ("answered", "lost", "wrong")}
    text = json.dumps(found, indent=1)
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
