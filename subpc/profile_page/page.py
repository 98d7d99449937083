"""The profile report: one HTML page that holds everything it shows, its plotting library included,
and never uses the network."""

import base64
import importlib.resources
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subpc.bench.report import BenchReport
from subpc.errors import ConfigError
from subpc.files import write_whole
from subpc.library.block_map import unpack_blocks
from subpc.library.report import FLOATS, CompileReport, LayerReport, Metadata
from subpc.profile_page import figures
from subpc.profiling.profile import Profile
from subpc.text import line

TEMPLATE = "page.html.j2"


@dataclass(frozen=True, kw_only=True)
class PageInput:
    """What the report is about. file_bytes: size of the library; bench: how other engines did,
    where that is known."""

    metadata: Metadata
    profile: Profile
    file_bytes: int
    bench: BenchReport | None = None


def write_page(path: str | Path, given: PageInput) -> None:
    """Write the report, whole or not at all; ConfigError where a package is missing or `path`
    cannot be written."""
    write_whole(path, render_page(given))


def render_page(given: PageInput) -> str:
    """The page as text."""
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigError(
            f"the HTML report needs {error.name}; install it with: pip install 'subpc[report]'"
        ) from error
    source = (
        importlib.resources.files("subpc.profile_page")
        .joinpath(TEMPLATE)
        .read_text(encoding="utf-8")
    )
    options: dict[str, Any] = {
        "undefined": jinja2.StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    environment = jinja2.Environment(autoescape=True, finalize=_shown, **options)
    report = CompileReport(metadata=given.metadata)
    plots = _plots(given)
    return environment.from_string(source).render(
        # The page's own scripts carry this word, and the page's policy lets no other script run.
        nonce=secrets.token_urlsafe(16),
        library=get_plotlyjs(),
        data=_embedded({"plots": plots, "maps": _maps(report.layers)}),
        plots=plots,
        report=report,
        metadata=given.metadata,
        profile=given.profile,
        bench=given.bench,
        cards=_cards(given, report),
        key=[(figures.NAMES[name], colour) for name, colour in figures.COLOURS.items()],
        mapped=[layer.name for layer in report.layers if layer.blocks],
        sizes=_sizes(given, report),
    )


def _shown(value: Any) -> Any:
    """Names of others without control characters, and cut; what the template marks as safe stays as
    it is."""
    return line(value) if type(value) is str else value


def _plots(given: PageInput) -> dict[str, Any]:
    """Figures as JSON values, by the name of the element that shows them."""
    layers = given.metadata.layers
    made = {"latency": figures.latency(given.profile), "roofline": figures.roofline(given.profile)}
    if layers:
        made |= {"sparsity": figures.sparsity(layers), "sizes": figures.sizes(layers)}
    if given.bench is not None:
        made["peers"] = figures.peers(given.bench)
    return {
        name: json.loads(figure.to_json()) for name, figure in made.items() if figure is not None
    }


def _embedded(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element: no text in it can end the element or begin a
    comment."""
    text = json.dumps(data, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _maps(layers: tuple[LayerReport, ...]) -> list[dict[str, Any]]:
    """The kept blocks of each layer with a pattern, one bit each."""
    maps = []
    for layer in layers:
        if layer.blocks and layer.n > 0 and len(layer.shape) > 1:
            kept = unpack_blocks(layer.blocks, layer.shape[0] // layer.n, layer.shape[1])
            bits = base64.b64encode(np.packbits(kept, axis=None).tobytes()).decode()
            facts = {
                "rows": kept.shape[0],
                "columns": kept.shape[1],
                "n": layer.n,
                "kept": float(kept.mean()),
            }
            maps.append(
                {"name": _shown(layer.name), "bits": bits, "pattern": layer.pattern, **facts}
            )
    return maps


def _cards(given: PageInput, report: CompileReport) -> list[tuple[str, str, str]]:
    """(what, value, remark) of the numbers on top of the page."""
    profile = given.profile
    useful = sum(row.gflops * row.ms for row in profile.layers) / (profile.total_ms or 1.0)
    cards = [
        (
            "one call",
            f"{profile.total_ms:.2f} ms",
            f"{profile.threads} threads, median of {profile.runs}",
        )
    ]
    precision = given.metadata.precision
    peak = profile.peak.of(precision) if profile.peak else 0.0
    of_peak = f"{useful / peak:.0%} of the measured peak" if peak else "peak not measured"
    unit = "GFLOP/s" if precision == FLOATS else "GOP/s"
    cards.append(("useful work", f"{useful:.0f} {unit}", f"{of_peak} in {precision}"))
    cards.append(
        (
            "zero weights",
            f"{report.sparsity:.0%}",
            f"of the convolutions; {sum(x.sparse for x in report.layers)} layers sparse",
        )
    )
    cards.append(("file", f"{given.file_bytes / 1e6:.1f} MB", "code, weights and metadata"))
    if given.bench is not None and given.bench.best_rival is not None:
        rival = given.bench.best_rival
        cards.append(
            (
                f"against {rival.engine}",
                f"{given.bench.ratio(rival) or 0:.2f}x",
                "time of the fastest other engine / ours",
            )
        )
    return cards


def _sizes(given: PageInput, report: CompileReport) -> list[tuple[str, float]]:
    """(what, megabytes)."""
    spaces = [function.workspace_floats * 4 for function in given.metadata.functions]
    return [
        (
            "weights of all layers, dense float32",
            sum(layer.bytes_dense for layer in report.layers) / 1e6,
        ),
        (
            "the same as stored: kept blocks and their indices",
            sum(layer.bytes_packed for layer in report.layers) / 1e6,
        ),
        ("whole library file", given.file_bytes / 1e6),
        ("workspace of one call", max(spaces, default=0) / 1e6),
    ]
