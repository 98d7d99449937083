"""torch.export files from strangers: nothing in them is executed, imported or worked out for hours,
and honest ones load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subpc.errors import ConfigError
from subpc.frontend.import_model import import_model
from tests.frontend.files.archives import Members, member, read, with_json, write
from tests.frontend.files.refusal import CODE, refused
from tests.frontend.small_model import SHAPE, save_open

Change = Callable[[Any], None]
MODEL = "models/model.json"
LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


@pytest.fixture(scope="module")
def open_shapes(tmp_path_factory: pytest.TempPathFactory) -> Members:
    path = tmp_path_factory.mktemp("open") / "m.pt2"
    save_open(path)
    return read(path)


def test_open_shapes_load_for_sizes_that_take_the_same_branches(
    open_shapes: Members, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.pt2", open_shapes)
    (imported,) = import_model(path, shapes=[(3, 3, 12, 9)])
    assert imported.output_names == ("rows", "all")
    with pytest.raises(ConfigError, match=r"shape\[2\] % 2 == 0"):
        import_model(path, shapes=[(3, 3, 11, 9)])


@pytest.mark.parametrize(
    "guard",
    [
        CODE,
        # Full-width letters, which Python takes for ASCII.
        "\uff45\uff58\uff45\uff43(\"import os; os.mkdir('executed')\") or L['x'].size()[0] > 0",
        "L['x'].__class__.__base__ == 1",
        f"(lambda: {CODE})() == 1",
        f"f'{{{CODE!r}}}' == 1",
        "9**9**9**9 > 1",
        "[x for x in L] == 1",
        "L['x'].size.__self__ == 1",
        "(" * 3000 + "1" + ")" * 3000,
        "max(*L) > 1",
        "L['x\"]) or exec(1'] == 1",
    ],
)
def test_guards_are_conditions_on_sizes(
    guard: str, open_shapes: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = with_json(open_shapes, MODEL, lambda program: program["guards_code"].append(guard))
    assert "expression" in refused(members, tmp_path, monkeypatch, (2, 3, 10, 8))


@pytest.mark.parametrize("names", [True, 3, {"x": 1}, "x", [1], [["x"]]], ids=str)
def test_names_of_arguments_are_texts(
    names: object, open_shapes: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(program: dict[str, Any]) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = names

    members = with_json(open_shapes, MODEL, change)
    assert "its forward_arg_names is of the type" in refused(
        members, tmp_path, monkeypatch, (2, 3, 10, 8)
    )


SYMBOLS = [f"Symbol('s{i}', positive=True, integer=True)" for i in range(900)]


@pytest.mark.parametrize(
    "expression",
    [
        *[
            CODE,
            "9**9**9**9",
            "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
            "Integer(9)**99999999",
            "Symbol('x').func('y')",
        ],
        *[
            "Symbol('__import__(1)')",
            "\uff5377",
            "Integer(1) if 1 else 2",
            "(" * 3000,
            f"Max({', '.join(SYMBOLS)})",
        ],
        "Mul(" + ", ".join(["Pow(Integer(99999999), Integer(16))"] * 300) + ")",
        "Float('1e999999999', precision=53)",
    ],
)
def test_sizes_are_small_expressions(
    expression: str, open_shapes: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"][
            "expr_str"
        ] = expression

    refused(with_json(open_shapes, MODEL, change), tmp_path, monkeypatch, (2, 3, 10, 8))


def tree(kind: str, context: Any) -> str:
    return json.dumps([1, {"type": kind, "context": context, "children_spec": [LEAF]}])


FACTORY = {
    "default_factory_module": "antigravity",
    "default_factory_name": "x",
    "dict_context": ["a"],
}
ENUM = {"__enum__": True, "fqn": "antigravity:X", "name": "a"}


@pytest.mark.parametrize(
    "spec",
    [
        tree("collections.defaultdict", FACTORY),
        tree("collections.defaultdict", FACTORY).replace(
            "default_factory", "default_f\\u0061ctory"
        ),
        tree("builtins.dict", json.dumps([ENUM])),
        tree("builtins.dict", json.dumps([[ENUM]]).replace("__enum__", "\\u005f_enum__")),
        tree("torch.return_types.max", "null"),
        tree("builtins.dict", json.dumps(["a']; x = ["])),
        "[1, " + '{"type":"builtins.list","context":"null","children_spec":[' * 2000,
    ],
)
def test_trees_import_nothing(
    spec: str, fixed: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = spec

    refused(with_json(fixed, MODEL, change), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "target",
    [
        *[
            "torch.os.system",
            "torch.\uff4fs.system",
            "torch.ops.aten.from_file.default",
            "torch.ops.aten.save.default",
            "torch.hub.load",
        ],
        *[
            "torch.ops.aten.relu.__call__",
            "torch.ops.higher_order.triton_kernel_wrapper_mutation",
            "torch.ops.aten._print.default",
        ],
        *[
            "math.factorial",
            "_operator.attrgetter",
            "#extension:x",
            "torch.ops.import_module",
            "torch.ops.aten.relu.default.__class__",
        ],
    ],
)
@pytest.mark.parametrize("place", ["called", "argument"])
def test_operators_are_known(
    target: str, place: str, fixed: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(program: Any) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        if place == "called":
            nodes[1]["target"] = target
        else:
            argument = {"name": "", "arg": {"as_operator": target}, "kind": 1}
            nodes.insert(
                0,
                {
                    "target": "torch.ops.higher_order.cond",
                    "inputs": [argument],
                    "outputs": [],
                    "metadata": {},
                    "name": "q",
                },
            )

    assert "not a plain tensor operator" in refused(
        with_json(fixed, MODEL, change), tmp_path, monkeypatch
    )


@pytest.mark.parametrize(
    "name", [CODE, "x); import os; os.mkdir('executed'); (", "\uff41", "x\n", "a b"]
)
@pytest.mark.parametrize("old", ["relu", "x", "p_conv_weight"])
def test_names_are_no_source(
    name: str, old: str, fixed: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = member(fixed, MODEL)
    content = fixed[path].replace(json.dumps(old).encode(), json.dumps(name).encode())
    assert content != fixed[path]
    refused({**fixed, path: content}, tmp_path, monkeypatch)


def _keyword(program: Any) -> None:
    program["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(name=CODE, kind=2)


def _argument_names(program: Any) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [CODE]


def _squares(program: Any) -> None:
    """Each number is the square of the one before."""
    for index in range(60):
        operand = {"as_sym_int": {"as_name": f"q{index - 1}"} if index else {"as_int": 1 << 60}}
        inputs = [{"name": name, "arg": operand, "kind": 1} for name in "ab"]
        node = {
            "target": "_operator.mul",
            "inputs": inputs,
            "outputs": [{"as_sym_int": {"as_name": f"q{index}"}}],
        }
        program["graph_module"]["graph"]["nodes"].insert(
            index, {**node, "metadata": {}, "name": f"q{index}"}
        )


def _counter(program: Any) -> None:
    program["range_constraints"]["u99999999999"] = {"min_val": 0, "max_val": 1}


@pytest.mark.parametrize("change", [_keyword, _argument_names, _squares, _counter])
def test_programs_do_no_other_work(
    change: Change, fixed: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(with_json(fixed, MODEL, change), tmp_path, monkeypatch)


def _of_another_type(program: Any) -> None:
    program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["kind"] = "one"


def _two_arguments_in_one(program: Any) -> None:
    program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"]["as_int"] = 1


def _no_outputs(program: Any) -> None:
    del program["graph_module"]["graph"]["outputs"]


def _no_such_type(program: Any) -> None:
    program["graph_module"]["graph"]["tensor_values"]["x"]["dtype"] = 4711


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_of_another_type, "its kind is of the type str; PyTorch writes ArgumentKind there"),
        (_two_arguments_in_one, "its arg is of a kind that this version"),
        (_no_outputs, "its graph lacks outputs"),
        (_no_such_type, "its dtype is of the type int; PyTorch writes ScalarType there"),
    ],
)
def test_programs_are_of_the_types_that_pytorch_declares(
    change: Change, words: str, fixed: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words in refused(with_json(fixed, MODEL, change), tmp_path, monkeypatch)


def test_what_pytorch_does_not_declare_is_left_out(fixed: Members, tmp_path: Path) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["later"] = {"version": "of_torch"}

    assert import_model(write(tmp_path / "m.pt2", with_json(fixed, MODEL, change)), shapes=[SHAPE])
