"""Networks as plain data: what comes back, and that nothing a stranger writes into a file is run,
or fills the memory."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx

from subpc.algorithms.file_format.compressed_file import CompressedFile, save_compressed
from subpc.algorithms.file_format.graph.entry import graph_entry, parse_graph
from subpc.algorithms.file_format.graph.layers import KINDS
from subpc.algorithms.file_format.graph.network import GraphNetwork
from subpc.algorithms.file_format.graph.operators import OPERATORS
from subpc.errors import ConfigError, ModelFileError, SubpcError
from subpc.frontend.import_model import import_model

# conv -> batch norm -> relu -> + the conv's result -> flat -> linear, and a tensor that is added.
ENTRY: dict[str, Any] = {
    "layers": {
        "stem.conv": [
            "conv2d",
            {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1},
        ],
        "stem.bn": ["batch_norm", {"eps": 1e-5}],
        "fc": ["linear", {}],
    },
    "nodes": [
        ["layer", [0], {"name": "stem.conv"}],
        ["layer", [1], {"name": "stem.bn"}],
        ["relu", [2], {}],
        ["add", [3, 1], {}],
        ["adaptive_avg_pool2d", [4], {"size": [1, 1]}],
        ["flatten", [5], {"start": 1, "end": -1}],
        ["layer", [6], {"name": "fc"}],
        ["tensor", [], {"name": "offset"}],
        ["add", [7, 8], {}],
    ],
    "outputs": [9],
}
SHAPE = (1, 3, 8, 8)


def state() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    sizes = {
        "stem.conv.weight": (4, 3, 3, 3),
        "stem.bn.weight": (4,),
        "stem.bn.bias": (4,),
        "stem.bn.running_mean": (4,),
    }
    sizes |= {"stem.bn.running_var": (4,), "fc.weight": (2, 4), "fc.bias": (2,), "offset": (2,)}
    return {name: torch.rand(size, generator=draw) + 0.1 for name, size in sizes.items()}


def network() -> GraphNetwork:
    return GraphNetwork(parse_graph(ENTRY, "f.pt"), state())


def test_the_network_computes_what_the_nodes_say() -> None:
    x, w = torch.randn(2, 3, 8, 8), state()
    y = torch.nn.functional.conv2d(x, w["stem.conv.weight"], padding=1)
    norms = (
        w["stem.bn.running_mean"],
        w["stem.bn.running_var"],
        w["stem.bn.weight"],
        w["stem.bn.bias"],
    )
    z = torch.relu(torch.nn.functional.batch_norm(y, *norms)) + y
    expected = z.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"] + w["offset"]
    assert torch.allclose(network()(x), expected, atol=1e-5)


def test_it_comes_back_from_its_entry() -> None:
    assert graph_entry(parse_graph(ENTRY, "f.pt")) == ENTRY


def test_it_can_be_copied_traced_and_exported() -> None:
    net, x = copy.deepcopy(network()), torch.randn(SHAPE)
    traced = fx.symbolic_trace(net)
    assert {str(node.target) for node in traced.graph.nodes if node.op == "call_module"} == {
        "stem.conv",
        "stem.bn",
        "fc",
    }
    program = torch.export.export(net, (x,))
    assert torch.allclose(program.module()(x), network()(x))


def changed(*path: Any, value: Any) -> dict[str, Any]:
    """ENTRY with `value` at the place."""
    entry = copy.deepcopy(ENTRY)
    place: Any = entry
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return entry


CONV = ("layers", "stem.conv")
BAD = {
    "no list of nodes": (changed("nodes", value={}), "lists"),
    "another key": ({**ENTRY, "code": "print()"}, "exactly the keys"),
    "an unknown operator": (changed("nodes", 2, 0, value="system"), "operator 'system'"),
    "an operator by its Python name": (
        changed("nodes", 2, 0, value="torch.relu"),
        "operator 'torch.relu'",
    ),
    "a value from later on": (changed("nodes", 2, 1, value=[5]), "not computed before"),
    "a negative value": (changed("nodes", 2, 1, value=[-1]), "not computed before"),
    "a value that is no number": (changed("nodes", 2, 1, value=[True]), "not computed before"),
    "too many inputs": (changed("nodes", 2, 1, value=[1, 2]), "inputs"),
    "an option that is not there": (changed("nodes", 2, 2, value={"inplace": True}), "options"),
    "an option that is missing": (changed("nodes", 4, 2, value={}), "options"),
    "an option of another type": (changed("nodes", 4, 2, value={"size": "11"}), "size"),
    "an option out of range": (changed("nodes", 4, 2, value={"size": [1 << 40, 1]}), "size"),
    "a layer that is not there": (changed("nodes", 0, 2, value={"name": "other"}), "not a layer"),
    "a layer's name that is code": (
        changed("layers", "x'); import os; ('", value=ENTRY["layers"]["fc"]),
        "no name",
    ),
    "a layer's name with dots alone": (
        changed("layers", "..", value=ENTRY["layers"]["fc"]),
        "no name",
    ),
    "a tensor's name that is code": (changed("nodes", 7, 2, value={"name": "a b"}), "not a tensor"),
    "an unknown layer": (changed(*CONV, 0, value="rnn"), "'rnn'"),
    "a stride of 0": (changed(*CONV, 1, "stride", value=[0, 1]), "stride"),
    "not a number": (changed("layers", "stem.bn", 1, value={"eps": float("nan")}), "eps"),
    "no output": (changed("outputs", value=[]), "an output"),
    "an output that is not there": (changed("outputs", value=[10]), "does not have"),
    "too many nodes": (changed("nodes", value=[["relu", [0], {}]] * 30_000), "at most"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_entries_are_named(what: str) -> None:
    entry, words = BAD[what]
    with pytest.raises(ModelFileError, match=words) as caught:
        parse_graph(entry, "f.pt")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stem.conv.weight", None, "stem.conv"),
        ("stem.conv.weight", torch.ones(4, 3, 3), "4 dimensions"),
        ("stem.bn.weight", torch.ones(5), "stem.bn.weight"),
        ("fc.bias", torch.ones(3), "fc.bias"),
        ("offset", None, "offset"),
        ("extra", torch.ones(3), "belong to no layer"),
    ],
)
def test_weights_that_do_not_fit(
    name: str, value: torch.Tensor | None, words: str, tmp_path: Path
) -> None:
    tensors = {
        key: tensor for key, tensor in {**state(), name: value}.items() if tensor is not None
    }
    save_compressed(
        tmp_path / "m.pt",
        CompressedFile(arch="graph", state_dict=tensors, graph=parse_graph(ENTRY, "f")),
    )
    with pytest.raises(ModelFileError, match=words):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


@pytest.mark.parametrize(
    "name", ["forward", "training", "state_dict", "_modules", "__class__", "subpc_graph"]
)
def test_names_that_modules_have_already_hide_nothing(name: str) -> None:
    entry = {
        "layers": {name: ENTRY["layers"]["fc"]},
        "nodes": [["layer", [0], {"name": name}]],
        "outputs": [1],
    }
    with pytest.raises(ValueError, match=name):
        GraphNetwork(parse_graph(entry, "f.pt"), {f"{name}.weight": torch.ones(2, 2)})


def test_doubling_without_end_is_refused_before_it_is_computed() -> None:
    entry = {
        "layers": {},
        "nodes": [["cat", [i, i], {"dim": 1}] for i in range(64)],
        "outputs": [64],
    }
    with pytest.raises(ModelFileError, match="memory"):
        GraphNetwork(parse_graph(entry, "f.pt"), {})(torch.ones(SHAPE))


def test_hooks_see_numbers_only() -> None:
    net, seen = network(), []
    net.get_submodule("stem.conv").register_forward_hook(
        lambda module, inputs, output: seen.append(output.device.type)
    )
    net(torch.ones(SHAPE))
    assert seen == ["cpu"]


def test_a_shape_that_does_not_fit_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="1,5,8,8"):
        network()(torch.ones(1, 5, 8, 8))


def test_tensors_that_claim_more_than_the_file_has(tmp_path: Path) -> None:
    save_compressed(
        tmp_path / "m.pt",
        CompressedFile(arch="graph", state_dict=state(), graph=parse_graph(ENTRY, "f")),
    )
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    content["state_dict"]["fc.weight"] = torch.ones(1).expand(1 << 20, 1 << 16)
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match="larger than"):
        import_model(tmp_path / "m.pt", shapes=[SHAPE])


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 40), 1 << 40),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([*OPERATORS, *KINDS]),
    st.lists(st.integers(-2, 12), max_size=4),
    st.dictionaries(st.text(max_size=6), st.integers(), max_size=2),
)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_changed_files_give_our_errors_only(data: st.DataObject) -> None:
    entry = copy.deepcopy(ENTRY)
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = entry
        while isinstance(place, dict | list) and place:
            key = data.draw(
                st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
            )
            if (
                not isinstance(place[key], dict | list)
                or not place[key]
                or data.draw(st.booleans())
            ):
                place[key] = data.draw(VALUES)
                break
            place = place[key]
    # ValueError is what load_file turns into a ModelFileError.
    with contextlib.suppress(SubpcError, ValueError):
        assert isinstance(
            GraphNetwork(parse_graph(entry, "f.pt"), state())(torch.ones(SHAPE)),
            torch.Tensor | tuple,
        )
