"""Images a second of `sanet predict`, beside a plain loop over the same network.

python benchmarks/throughput.py OUTPUT.csv MODEL FOLDER [GRAPH.onnx …]

The plain loop decodes an image of FOLDER by Pillow, predicts by PyTorch and writes a PNG. Then the model, and each
exported file, label the same images at their own size as `sanet predict` does. All take turns, ROUNDS times;
OUTPUT.csv gets the seconds of every turn, opening the model left out.
"""

import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from PIL import Image

import sanet
from sanet.config import OutputConfig
from sanet.inference.predict import Engine, predict_collection
from sanet.tables import text_table

ROUNDS = 3
OWN_SIZE = sanet.InferenceConfig(shorter_side=0)


@torch.inference_mode()
def plain(network: torch.nn.Module, paths: list[Path], output: Path) -> None:
    """What one writes without this package."""
    for path in paths:
        image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
        Image.fromarray(network(image).logits.argmax(1)[0].to(torch.uint8).numpy()).save(output / f"{path.stem}.png")


def main(output: str, model: str, folder: str, *graphs: str) -> None:
    """Measure, write and print."""
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix in (".png", ".jpg"))
    network = sanet.Predictor(model, "cpu", OWN_SIZE).network
    assert network is not None
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name in ("plain loop", model, *graphs):
            engine = None if name == "plain loop" else Engine(name, "cpu", OWN_SIZE, OutputConfig(overlays=False))
            with TemporaryDirectory() as place:
                start = perf_counter()
                if engine is None:
                    plain(network, paths, Path(place))
                else:
                    predict_collection(engine, [folder], place, progress=False)
                seconds.setdefault(Path(name).name, []).append(perf_counter() - start)
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["what", "images", "round", "seconds"])
        table.writerows(
            [name, len(paths), n, f"{s:.3f}"] for name, all_s in seconds.items() for n, s in enumerate(all_s)
        )
    first = np.array(seconds["plain loop"])
    lines = [
        [name, f"{len(paths) / np.median(all_s):.1f}", f"{np.median(first / all_s):.2f}"]
        for name, all_s in seconds.items()
    ]
    print(text_table(("", "images a second", "times the plain loop"), lines))
    print(f"{len(paths)} images, {ROUNDS} rounds, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main(*sys.argv[1:])
