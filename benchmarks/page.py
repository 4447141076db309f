"""How soon the page of `sanet demo` answers, as a visitor in a headless Chromium on the same machine sees it.

python benchmarks/page.py OUTPUT.csv   # needs the extra `demo`, playwright, and Debian's chromium

The bundled model and its two examples, 480x360, in turn. An answer is there when the page shows its image.
"""

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median
from time import perf_counter

from playwright.sync_api import Page, sync_playwright

ROUNDS = 10  # after one to warm up
IMAGE, GROUP = "#first-image img", "#first-groups img"


def replaced(page: Page, selector: str, act: Callable[[], object]) -> float:
    """Seconds from an act to another image in an element, complete."""
    # In one step: an element that is being taken away is there, and is gone.
    old = page.evaluate("selector => document.querySelector(selector)?.src ?? null", selector)
    start = perf_counter()
    act()
    page.wait_for_function(
        """([selector, old]) => {
            const shown = document.querySelector(selector);
            return shown && shown.src != old && shown.complete && shown.naturalWidth;
        }""",
        arg=[selector, old],
    )
    return perf_counter() - start


def look(page: Page, example: Path, across: float) -> dict[str, float]:
    """Seconds of each act of a visitor: an image, a click somewhere on its lower part, another opacity."""
    took = {"image": replaced(page, IMAGE, lambda: page.set_input_files("#upload input[type=file]", example))}
    page.wait_for_timeout(500)
    box = page.locator(IMAGE).bounding_box()
    assert box is not None
    x, y = box["width"] * across, box["height"] * 0.7
    took["click"] = replaced(page, GROUP, lambda: page.click(IMAGE, position={"x": x, "y": y}))
    page.wait_for_timeout(500)
    slider = page.locator("#opacity input[type=range]")
    took["opacity"] = replaced(page, IMAGE, lambda: slider.press("ArrowLeft"))
    slider.press("ArrowRight")  # back to where it was
    page.wait_for_timeout(500)
    page.click("#upload button[title='Remove Image']")
    page.wait_for_selector("#upload input[type=file]", state="attached")
    return took


def main() -> None:
    """Start the page, visit it, print and write the times."""
    output = Path(sys.argv[1])
    start = perf_counter()
    command = [sys.executable, "-m", "sanet", "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]  # "open http://..."
            ready = perf_counter() - start
            examples = sorted(Path(str(files("sanet.demo") / "examples")).glob("*.jpg"))
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(address)
            page.wait_for_selector("#upload input[type=file]", state="attached")
            visits = [look(page, examples[turn % 2], 0.2 + 0.05 * turn) for turn in range(ROUNDS + 1)][1:]
            browser.close()
        finally:
            server.terminate()
    seconds = {"start": [ready], **{act: [took[act] for took in visits] for act in visits[0]}}
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["act", "times", "median_s", "slowest_s"])
        for act, values in seconds.items():
            writer.writerow([act, len(values), f"{median(values):.2f}", f"{max(values):.2f}"])
    print(output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
