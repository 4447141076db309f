"""What an engine saves of an image, and how many images pay for making its graph.

python benchmarks/engines.py OUTPUT.csv MODEL FOLDER

Images of FOLDER, evenly spaced, are labelled by PyTorch and by ONNX Runtime in turn, at the size that the model
is meant for and at their own. OUTPUT.csv gets the seconds of every image; the time for the graph is printed.
"""

import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch

import sanet
from sanet.deploy.export import export
from sanet.models.networks import load_model
from sanet.tables import text_table

IMAGES = 30


def main(output: str, model: str, folder: str) -> None:
    """Measure, write and print."""
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix in (".png", ".jpg"))
    paths = [paths[at] for at in np.unique(np.linspace(0, len(paths) - 1, IMAGES).round().astype(int))]
    rows, lines = [], []
    with TemporaryDirectory() as place:
        start, graph = perf_counter(), Path(place) / "graph.onnx"
        export(load_model(model), graph, outputs="logits+features", progress=False)
        making = perf_counter() - start
        for side in (None, 0):
            how = sanet.InferenceConfig(shorter_side=side)
            engines = {"torch": sanet.Predictor(model, "cpu", how), "onnxruntime": sanet.Predictor(graph, "cpu", how)}
            for path in (paths[0], *paths):  # the first one twice, as a warm-up
                image, masks = engines["torch"].read(path), []
                for name, predictor in engines.items():
                    start = perf_counter()
                    masks.append(predictor(image).mask)
                    rows.append([str(engines["torch"].inference.shorter_side), path.name, name, perf_counter() - start])
                rows[-1].append((masks[0] == masks[1]).mean())
            seen = rows[2:] if side is None else rows[-2 * len(paths) :]
            torch_s, other_s = (np.mean([row[3] for row in seen if row[2] == name]) for name in engines)
            equal = np.mean([row[4] for row in seen if len(row) > 4])
            pays = making / (torch_s - other_s) if torch_s > other_s else float("inf")
            lines.append([seen[0][0], f"{torch_s:.3f} s", f"{other_s:.3f} s", f"{equal:.6f}", f"{pays:.0f}"])
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["shorter_side", "image", "engine", "seconds", "equal"])
        table.writerows([*row[:3], f"{row[3]:.4f}", *row[4:]] for row in rows)
    print(text_table(("shorter side", "torch", "onnxruntime", "equal labels", "images that pay for the graph"), lines))
    print(f"the graph takes {making:.0f} s; {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main(*sys.argv[1:])
