"""Dense networks as engineers have them, against the faster of ONNX Runtime and OpenVINO: every
ratio is wanted at 1.0 or more.

    # the list below, about 40 minutes on two cores
    python benchmarks/dense_table.py
    python benchmarks/dense_table.py --only squeezenet        # some rows
    # any other network of torchvision, timm or (if installed) ultralytics
    python benchmarks/dense_table.py --net timm:ghostnet_100
    # what has been measured, put into docs/performance.md
    python benchmarks/dense_table.py --show --write

Weights are seeded, inputs 224x224 (detectors 320x320), batch 1. A row that is in the results file
is not measured again but with --fresh.
"""

from collections.abc import Sequence
from typing import Any

import click
import torch
from against_engines import ROOT, Results, cells, table_options, time_model, write_between
from torch import nn

from subpc.demo.random_networks import set_statistics
from subpc.frontend.architectures.torchvision_import import import_torchvision

RESULTS = ROOT / "benchmarks" / "results" / "dense_table.jsonl"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = (
    "<!-- dense table: benchmarks/dense_table.py --show --write -->",
    "<!-- end of dense table -->",
)
GOAL = 1.0
NETWORKS = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:resnext50_32x4d",
    "torchvision:vgg16_bn",
    "torchvision:densenet121",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_large",
    "torchvision:efficientnet_b0",
    "torchvision:mnasnet1_0",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:squeezenet1_1",
    "torchvision:googlenet",
    "torchvision:inception_v3",
    "torchvision:regnet_y_400mf",
    "torchvision:convnext_tiny",
    "torchvision:segmentation.deeplabv3_mobilenet_v3_large",
    "torchvision:segmentation.lraspp_mobilenet_v3_large",
    "timm:mobilenetv4_conv_small",
    "timm:dla34",
    "timm:fastvit_t8",
    "timm:ghostnet_100",
    "timm:repvgg_a0",
    "ultralytics:yolov5n",
    "ultralytics:yolov8n",
    "ultralytics:yolov8n-seg",
    "ultralytics:yolo11n",
)


class FirstOutput(nn.Module):
    """A network that returns one tensor: the main output of those that return several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first tensor among the network's outputs."""
        result: Any = self.network(x)
        while not isinstance(result, torch.Tensor):
            result = next(iter(result.values())) if isinstance(result, dict) else result[0]
        return result


def network(name: str) -> tuple[nn.Module, Sequence[int]]:
    """The network of a name such as "timm:dla34" with seeded weights, in eval mode, and its input's
    shape; its result depends on its input."""
    model, shape = _built(name)
    return set_statistics(model, shape), shape


def _built(name: str) -> tuple[nn.Module, Sequence[int]]:
    library, _, model = name.partition(":")
    torch.manual_seed(0)
    torchvision = import_torchvision()
    side = 320 if library == "ultralytics" else 299 if "inception" in model else 224
    if library == "torchvision":
        build = torchvision.models
        for part in model.split("."):
            build = getattr(build, part)
        options = {"weights_backbone": None} if "segmentation" in model else {}
        return FirstOutput(build(weights=None, **options)).eval(), (1, 3, side, side)
    if library == "timm":
        import timm

        return timm.create_model(model, pretrained=False).eval(), (1, 3, side, side)
    from ultralytics import YOLO

    return FirstOutput(YOLO(f"{model}.yaml").model).eval(), (1, 3, side, side)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown, the lowest ratio first."""
    lines = [
        "| network | subpc ms | ONNX Runtime ms | OpenVINO ms | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, entry in sorted(rows.items(), key=lambda item: item[1]["ratio"]):
        mark = "" if entry["ratio"] >= GOAL else " **missed**"
        lines.append(f"| {name} | {' | '.join(cells(entry))} | {entry['ratio']:.2f}{mark} |")
    return "\n".join(lines)


@click.command()
@click.option("--net", "extra", multiple=True, help="another network, such as timm:ghostnet_100")
@table_options("docs/performance.md")
def main(
    extra: tuple[str, ...], only: str, fresh: bool, show: bool, write: bool, runs: int, rounds: int
) -> None:
    """Measure the rows that are missing, then print the table."""
    results = Results(RESULTS)
    for name in results.wanted(extra or NETWORKS, only=only, fresh=fresh, show=show):
        try:
            model, shape = network(name)
        except ImportError as error:
            click.echo(f"{name}: left out, {error}")
            continue
        results.add(name, time_model(model, shape, runs=runs, rounds=rounds))
    click.echo(table(results.rows))
    if write:
        write_between([PAGE], BEGIN, END, table(results.rows))


if __name__ == "__main__":
    main()
