"""What a hostile file would hold: texts, numbers, lines of code and names that a reader might act
on."""

import json
from typing import Any

CANARY = "canary_of_the_fuzz_test"


CODE = f"__import__('os').mkdir('{CANARY}')"


# Every text that a reader might evaluate, import, look up or open.
TEXTS = [
    *[
        CODE,
        f"exec({CODE!r})",
        "\uff45\uff58\uff45\uff43('1')",
        f"L['x'].size()[0] if {CODE} else 1",
        "9**9**9**9",
        "Pow(Integer(9), Integer(999999999))",
    ],
    *[
        "torch.os.mkdir",
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "_operator.attrgetter",
        f"{CANARY}:X",
    ],
    *[
        "torch.ops.aten.cat.default",
        "torch.ops.aten.zeros.default",
        "torch.ops.aten.repeat.default",
        "Symbol('s0')",
        "u99999999",
        "s77",
    ],
    *[
        "../../../etc/passwd",
        "/etc/passwd",
        "",
        "\x00",
        "\x1b[2J",
        "a" * 5000,
        "\uff41",
        "\ud800",
        "null",
        "[]",
        "{}",
        "weight_0",
        "tensor_0",
    ],
    *[
        json.dumps({"__enum__": True, "fqn": f"{CANARY}:X", "name": "a"}),
        '[1, {"type": "builtins.dict", "context": "[]", "children_spec": []}]',
    ],
]


NUMBERS = [
    0,
    1,
    -1,
    7,
    255,
    256,
    1 << 16,
    1 << 31,
    (1 << 31) - 1,
    1 << 40,
    1 << 62,
    1 << 63,
    1 << 64,
    10**30,
    0.5,
    1e300,
    float("inf"),
]


VALUES: list[Any] = [
    *TEXTS,
    *NUMBERS,
    None,
    True,
    False,
    [],
    {},
    [[]],
    {"as_int": 1 << 40},
    {"as_string": CODE},
    {"as_operator": "torch.os"},
]


SCRIPT_LINES = [
    f'torch.save(x, "{CANARY}")',
    f't = torch\n    t.save(x, "{CANARY}")',
    f'x = ops.aten.from_file("{CANARY}", True, 100)',
    f'ops.aten._print("{CANARY}")',
    "x = torch.zeros([1000000000000])",
    "x = torch.repeat(x, [100000, 100000, 1, 1])",
    "x = ops.prim.NumToTensor(3)",
    'ops.prim.RaiseException("\x1b[2J")',
    "x = CONSTANTS.c99",
    "_ = annotate(List[int], [])[5]",
    "_0 = True\n    while _0:\n      _0 = True",
    "_0 = 0\n    while torch.ge(_0, 0):\n      _0 = torch.add(_0, 0)",
]


GLOBALS = [
    "os\nsystem",
    "posix\nsystem",
    "builtins\neval",
    "torch\nload",
    "__torch__.torch\nclasses.x.Y",
    "torch._utils\n_rebuild_tensor",
]
