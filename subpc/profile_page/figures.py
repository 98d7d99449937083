"""The plots of the profile report, as plotly figures. Names come from models, so all text is
escaped: plotly reads some HTML."""

import html
import math
from typing import Any

from subpc.bench.report import BenchReport
from subpc.library.report import INTEGERS, LayerReport
from subpc.profiling.probes import MachinePeak
from subpc.profiling.profile import LayerTime, Profile
from subpc.text import line, printable

# Okabe and Ito's colours, which people with any colour vision can tell apart, on light and on dark
# ground.
COLOURS = {"sparse": "#009e73", "dense": "#e69f00", "": "#7f8fa6"}
NAMES = {"sparse": "sparse kernel", "dense": "dense kernel", "": "other steps"}
_ROW_PIXELS, _MARGIN_PIXELS = 18, 90
_LONGEST_NAME = 34
# More columns than this have no room for names.
_NAMED_COLUMNS = 26
_ROOF = "#cc79a7"


def latency(profile: Profile) -> Any:
    """A bar a layer, the first layer on top."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for decision, colour in COLOURS.items():
        rows = [row for row in profile.layers if row.decision == decision]
        if rows:
            figure.add_bar(
                orientation="h",
                x=[row.ms for row in rows],
                y=[_label(row.layer) for row in rows],
                name=NAMES[decision],
                marker_color=colour,
                hovertext=[_hover(row) for row in rows],
                hoverinfo="text",
            )
    labels = [_label(row.layer) for row in profile.layers]
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=labels[::-1],
        automargin=True,
        tickmode="linear",
        tickfont_size=11,
    )
    figure.update_xaxes(side="top", ticksuffix=" ms")
    figure = _styled(figure, height=_MARGIN_PIXELS + _ROW_PIXELS * len(labels))
    return figure.update_layout(showlegend=False, margin={"t": 40, "b": 10})


def roofline(profile: Profile) -> Any:
    """Useful operations a second over operations a byte, under the roofs that were measured: that
    of floats, and of integers where any layer computes them. None where they were not."""
    import plotly.graph_objects as go

    rows = [row for row in profile.layers if row.gflops > 0 and row.intensity > 0]
    if profile.peak is None or not rows:
        return None
    figure = go.Figure()
    for decision, colour in COLOURS.items():
        group = [row for row in rows if row.decision == decision]
        if group:
            sizes = [6 + 26 * math.sqrt(row.share) for row in group]
            figure.add_scatter(
                mode="markers",
                x=[row.intensity for row in group],
                y=[row.gflops for row in group],
                marker={"color": colour, "size": sizes, "opacity": 0.75, "line": {"width": 0}},
                name=NAMES[decision],
                hovertext=[_hover(row) for row in group],
                hoverinfo="text",
            )
    low, high = min(row.intensity for row in rows) / 2, max(row.intensity for row in rows) * 2
    peak, roofs = profile.peak, _roofs(profile.peak, rows)
    for name, rate, dash in (
        ("core's cache", peak.cache_gbytes, "dot"),
        ("memory", peak.memory_gbytes, "dash"),
    ):
        ridge = max(roofs.values()) / rate
        x = [low, min(ridge, high)]
        text = f"{name}: {rate:.0f} GB/s"
        figure.add_scatter(
            mode="lines",
            x=x,
            y=[rate * i for i in x],
            line={"dash": dash, "width": 2, "color": _ROOF},
            name=text,
        )
    for name, most in roofs.items():
        figure.add_scatter(
            mode="lines",
            x=[low, high],
            y=[most] * 2,
            line={"width": 2, "color": _ROOF},
            name=f"{peak.threads} threads: {most:.0f} {name}",
        )
    figure.update_xaxes(type="log", title="useful operations a byte", dtick=1)
    figure.update_yaxes(type="log", title=f"useful {_unit(rows)}", dtick=1)
    return _styled(figure, height=480)


def _roofs(peak: MachinePeak, rows: list[LayerTime]) -> dict[str, float]:
    """The peaks of what the layers compute in, by their units."""
    roofs = {"GFLOP/s": peak.gflops}
    if peak.integer_gops and any(row.precision == INTEGERS for row in rows):
        roofs["GOP/s in int8"] = peak.integer_gops
    return roofs


def _unit(rows: list[LayerTime]) -> str:
    return "GOP/s" if any(row.precision == INTEGERS for row in rows) else "GFLOP/s"


def sparsity(layers: tuple[LayerReport, ...]) -> Any:
    """Share of zero weights a layer."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for used in (True, False):
        rows = [layer for layer in layers if layer.sparse == used]
        if rows:
            figure.add_bar(
                x=[_label(layer.name) for layer in rows],
                y=[100 * layer.sparsity for layer in rows],
                name=NAMES["sparse" if used else "dense"],
                marker_color=COLOURS["sparse" if used else "dense"],
            )
    labels = [_label(layer.name) for layer in layers]
    _name_columns(figure, labels).update_yaxes(title="zero weights, %", range=[0, 100])
    return _styled(figure, height=360).update_layout(showlegend=False, margin_t=15)


def sizes(layers: tuple[LayerReport, ...]) -> Any:
    """Megabytes of weights a layer, dense and as they are stored."""
    import plotly.graph_objects as go

    labels = [_label(layer.name) for layer in layers]
    figure = go.Figure()
    figure.add_bar(
        x=labels,
        y=[layer.bytes_dense / 1e6 for layer in layers],
        name="as dense float32",
        marker_color="#7f8fa6",
    )
    figure.add_bar(
        x=labels,
        y=[layer.bytes_packed / 1e6 for layer in layers],
        name="in this library",
        marker_color="#0072b2",
    )
    _name_columns(figure, labels).update_yaxes(title="MB")
    return _styled(figure.update_layout(barmode="overlay"), height=360)


def peers(bench: BenchReport) -> Any:
    """Median time of each engine."""
    import plotly.graph_objects as go

    timed = [(engine, engine.timing) for engine in bench.engines if engine.timing is not None]
    colours = ["#009e73" if engine.engine.startswith("subpc") else "#7f8fa6" for engine, _ in timed]
    figure = go.Figure()
    figure.add_bar(
        orientation="h",
        x=[timing.p50 for _, timing in timed],
        y=[_label(engine.engine) for engine, _ in timed],
        text=[f"{timing.p50:.2f} ms" for _, timing in timed],
        marker_color=colours,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [timing.p90 - timing.p50 for _, timing in timed],
        },
        showlegend=False,
        hoverinfo="skip",
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="ms a call: median, 90th percentile", rangemode="tozero")
    return _styled(figure, height=110 + 44 * len(timed))


def _name_columns(figure: Any, labels: list[str]) -> Any:
    """Columns in the order of `labels`, with their names where there is room for them."""
    few = len(labels) <= _NAMED_COLUMNS
    title = None if few else "layers in order"
    axis = {
        "categoryorder": "array",
        "categoryarray": labels,
        "showticklabels": few,
        "tickangle": -60,
        "tickfont_size": 10,
    }
    return figure.update_xaxes(automargin=True, title=title, **axis)


def _label(name: str) -> str:
    """The name, its end where it is long: that is where layers differ."""
    return html.escape(
        printable(name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :])
    )


def _hover(row: LayerTime) -> str:
    facts = [
        f"<b>{html.escape(line(row.layer))}</b>",
        f"{row.ms:.3f} ms, {row.share:.1%}",
        f"{row.gflops:.0f} {_unit([row])}" + (f" in {row.precision}" if row.precision else ""),
    ]
    facts += [f"{row.of_peak:.0%} of the peak"] if row.of_peak is not None else []
    facts += [f"{row.sparsity:.0%} zeros, N = {row.n or '-'}"] if row.sparsity is not None else []
    return "<br>".join([*facts, html.escape(line(row.family))])


def _styled(figure: Any, height: int) -> Any:
    """Transparent, so that the page's own colours show; the page sets the colour of text and
    grid."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        bargap=0.25,
    )
    return figure
