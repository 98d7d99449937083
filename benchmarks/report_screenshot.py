"""The image of the profile report in docs/profile.md: a ResNet-50 with 75 % of its blocks pruned,
beside other engines.

    python benchmarks/report_screenshot.py [--output docs/profile_report.png]

Needs Chromium, and a machine that does nothing else: the report says so where it does not have one.
"""

import io
import shutil
import tempfile
from pathlib import Path

import click
import torch
from PIL import Image

import subpc
from subpc.bench import bench
from subpc.demo.random_networks import prune_uniform, seeded_model
from subpc.profile_page.page import PageInput, write_page

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
WIDTH, HEIGHT = 1366, 2440
COLOURS = 96


def make_page(folder: Path, runs: int) -> Path:
    """Compile, profile and compare; returns the page."""
    model, x = (
        prune_uniform(seeded_model("resnet50"), n=16, sparsity=0.75),
        torch.rand(1, 3, 224, 224),
    )
    library, page = folder / "resnet50.so", folder / "report.html"
    compiled = subpc.compile(model, x, output=library)
    compared = bench.time_engines(library, ["onnxruntime", "openvino"], model=model, runs=runs)
    profile = compiled.profile(runs=runs)
    given = PageInput(
        metadata=compiled.report.metadata,
        profile=profile,
        file_bytes=library.stat().st_size,
        bench=compared,
    )
    write_page(page, given)
    return page


def photograph(page: Path) -> Image.Image:
    """The top of the page as a browser on a laptop shows it."""
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium")
    with sync_playwright() as tools, tempfile.TemporaryDirectory() as profile:
        options = {"executable_path": browser, "headless": True, "args": FLAGS}
        context = tools.chromium.launch_persistent_context(
            profile, viewport={"width": WIDTH, "height": HEIGHT}, **options
        )
        tab = context.new_page()
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready]")
        tab.wait_for_timeout(1000)
        image = tab.screenshot()
        context.close()
    return Image.open(io.BytesIO(image))


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("docs/profile_report.png"),
    show_default=True,
)
@click.option("--runs", default=60, show_default=True, help="Timed calls of each engine and step.")
def main(output: Path, runs: int) -> None:
    """Write the image."""
    with tempfile.TemporaryDirectory() as folder:
        image = photograph(make_page(Path(folder), runs)).convert("RGB")
    small = image.resize((1000, round(HEIGHT * 1000 / WIDTH)), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(output, optimize=True)
    click.echo(f"wrote {output}: {output.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
