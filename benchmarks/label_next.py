"""What the images that `sanet next` chooses bring, beside images drawn at random.

python benchmarks/label_next.py OUTPUT CAMVID

CamVid's train, in the SegNet layout, is the pool. By seed 40 of its 367 images are drawn and labelled; then three times
40 more: by `sanet next`, or at random. Every model starts from ImageNet, over EfficientNet-Lite0,
trains for as many steps as the others, on crops of 192x256, and is scored on every third image of test.
OUTPUT/scores.csv gets a line for every model. Called again it goes on where it was, and prints the table.
"""

import csv
import shutil
import sys
from itertools import product
from pathlib import Path

import numpy as np

import sanet
from sanet.tables import text_table

START, EACH, ROUNDS, SEEDS = 40, 40, 3, (0, 1, 2)
STEPS, BATCH, CROP, VALIDATED = 150, 8, (192, 256), 20
MODEL = sanet.ModelConfig()
STRATEGIES = ("next", "random")


def linked(root: Path, camvid: Path, names: list[str]) -> sanet.DataConfig:
    """A dataset with these images of train, and some of val."""
    shutil.rmtree(root, ignore_errors=True)
    validated = sorted(path.name for path in (camvid / "val").iterdir())
    few = [validated[at] for at in np.unique(np.linspace(0, len(validated) - 1, VALIDATED).round().astype(int))]
    third = sorted(path.name for path in (camvid / "test").iterdir())[::3]
    for split, chosen in (("train", names), ("val", few), ("test", third)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
            for name in chosen:
                (root / folder / name).symlink_to((camvid / folder / name).resolve())
    return sanet.DataConfig("camvid", str(root))


def trained(run: Path, data: sanet.DataConfig, count: int, seed: int) -> float:
    """Train a model on so many images, unless that is done; its mIoU on test."""
    if not (run / "model").is_dir():
        shutil.rmtree(run, ignore_errors=True)
        epochs = max(1, round(STEPS * BATCH / count))
        settings = sanet.TrainConfig(
            output=str(run),
            data=data,
            model=MODEL,
            augmentation=sanet.AugmentationConfig(crop=CROP),
            epochs=epochs,
            validate_every=epochs,
            batch_size=BATCH,
            num_workers=0,
            threads=1,
            seed=seed,
            accelerator="cpu",
        )
        sanet.train(settings)
    return sanet.evaluate(run / "model", data, "test", device="cpu", progress=False).scores.miou


def chosen(strategy: str, run: Path, pool: Path, names: list[str], seed: int) -> list[str]:
    """Names of the next images of train."""
    left = sorted(path.name for path in pool.iterdir() if path.name not in names)
    if strategy == "random":
        return np.random.default_rng((seed, len(names))).permutation(left)[:EACH].tolist()
    labelled = [str(pool / name) for name in names]
    found = sanet.next_to_label(str(pool), run / "model", EACH, labelled, device="cpu")
    return [choice.image.name for choice in found]


def main(output: str, camvid: str) -> None:
    """Measure, write and print."""
    folder, pool = Path(output), Path(camvid, "train")
    folder.mkdir(parents=True, exist_ok=True)
    path, rows = folder / "scores.csv", list[list[str]]()
    if path.is_file():
        rows = [*csv.reader(path.read_text(encoding="utf-8").splitlines())][1:]
    for seed, strategy in product(SEEDS, STRATEGIES):
        order = np.random.default_rng(seed).permutation(sorted(path.name for path in pool.iterdir()))
        names, start = order[:START].tolist(), folder / f"start-{seed}"
        run = start
        for number in range(ROUNDS + 1):
            key = [str(seed), "start" if number == 0 else strategy, str(len(names))]
            found = next((row for row in rows if row[:3] == key), None)
            if found is None:
                data = linked(folder / "data", Path(camvid), names)
                miou = trained(run, data, len(names), seed)
                rows.append(found := [*key, f"{miou:.4f}", " ".join(sorted(names))])
                with path.open("w", encoding="utf-8", newline="") as file:
                    table = csv.writer(file, lineterminator="\n")
                    table.writerows([["seed", "strategy", "images", "miou", "names"], *rows])
            names = found[4].split()
            following = folder / f"{strategy}-{seed}-{len(names) + EACH}"
            known = next((row for row in rows if row[:3] == [str(seed), strategy, str(len(names) + EACH)]), None)
            if number < ROUNDS:
                names = known[4].split() if known else [*names, *chosen(strategy, run, pool, names, seed)]
            run = following
    lines = []
    for strategy in STRATEGIES:
        cells = [strategy]
        for count in range(START, START + EACH * ROUNDS + 1, EACH):
            kinds = (strategy, "start")
            values = [100 * float(row[3]) for row in rows if row[1] in kinds and row[2] == str(count)]
            cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")
        lines.append(cells)
    print(text_table(("mIoU on test", *(f"{START + EACH * number} images" for number in range(ROUNDS + 1))), lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
