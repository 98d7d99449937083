"""Shapes of a model's inputs as a user gives them, with names and types where needed, and which
input each of them belongs to."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from subpc.errors import ConfigError
from subpc.frontend.messages import printable

# Element types that an input may have.
DTYPES = ("float32", "uint8", "int8", "int32", "int64", "bool")


class InputShape(tuple[int, ...]):
    """A shape, equal to the plain tuple. name, dtype: of the input that it belongs to; empty where
    nothing says it."""

    name: str
    dtype: str

    def __new__(cls, shape: Iterable[int], *, name: str = "", dtype: str = "") -> "InputShape":
        """A shape with these marks."""
        made = super().__new__(cls, shape)
        made.name, made.dtype = name, dtype
        return made

    def __reduce__(self) -> Any:
        return _restored, (tuple(self), self.name, self.dtype)


def _restored(shape: tuple[int, ...], name: str, dtype: str) -> InputShape:
    return InputShape(shape, name=name, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a model says of one input. shape: numbers, and names of open sizes; None where it is not
    known; optional: has a default."""

    name: str
    shape: tuple[int | str, ...] | None = None
    dtype: str = ""
    optional: bool = False

    def __str__(self) -> str:
        shape = "" if self.shape is None else ",".join(map(str, self.shape)) or "a scalar"
        return " ".join(printable(part) for part in (self.name, self.dtype, shape) if part)


def for_one_image(info: Input) -> tuple[int, ...] | None:
    """The input's shape with 1 for a batch that is open; None where more is open, or nothing."""
    first, *others = info.shape or (1,)
    sizes = [n for n in others if isinstance(n, int)]
    return (1, *sizes) if isinstance(first, str) and len(sizes) == len(others) else None


def parse_shape(text: str) -> InputShape:
    """`[NAME=]1,3,224,224[:TYPE]`, where names may have any character; ValueError with what is
    wrong."""
    name, _, rest = text.rpartition("=")
    sizes, _, dtype = rest.partition(":")
    parts = [part.strip() for part in sizes.replace("x", ",").split(",")]
    if not all(part.isascii() and part.isdecimal() and 0 < int(part) < 1 << 31 for part in parts):
        raise ValueError(
            f"{text!r} is not a shape; give positive numbers with commas between, as in 1,3,224,224"
            " or NAME=1,3,224,224"
        )
    if dtype and dtype not in DTYPES:
        raise ValueError(
            f"{dtype!r} is no element type; accepted behind a shape: {', '.join(DTYPES)}, as in"
            " 1,224,224,3:uint8"
        )
    return InputShape(map(int, parts), name=name, dtype=dtype)


def as_shapes(given: Any) -> list[tuple[int, ...]] | None:
    """What `shapes=` of the Python functions takes, as a list: shapes, {name: shape}, or one shape
    alone."""
    if given is None or (isinstance(given, Sequence | Mapping) and not given):
        return None
    if isinstance(given, Mapping):
        return [InputShape(_checked(shape), name=str(name)) for name, shape in given.items()]
    if isinstance(given, Sequence) and all(isinstance(size, int) for size in given):
        return [_checked(given)]
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ConfigError(
            f"shapes is {given!r:.100}; a list such as [(1, 3, 224, 224)], or a dictionary by input"
            " name, is accepted."
        )
    return [_checked(shape) for shape in given]


def _checked(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    if not sizes or not all(type(size) is int and size >= 1 for size in sizes):
        raise ConfigError(
            f"Input shape {shape!r:.100} is not valid: every dimension must be 1 or more, such as"
            " (1, 3, 224, 224)."
        )
    return shape if isinstance(shape, InputShape) else sizes


def is_open(inputs: Sequence[Input]) -> bool:
    """Whether a model says that it takes several sizes, or nothing of its sizes."""
    return any(info.shape is None or any(isinstance(n, str) for n in info.shape) for info in inputs)


def shapes_for_one(inputs: Sequence[Input]) -> list[InputShape]:
    """The inputs' own shapes, with 1 for a batch that is open; ConfigError that lists the inputs
    where more is open than that."""
    shapes = [_for_one(info) for info in inputs]
    if all(shape and all(isinstance(n, int) for n in shape) for shape in shapes):
        return [
            InputShape(map(int, s), name=i.name, dtype=i.dtype)
            for s, i in zip(shapes, inputs, strict=True)
        ]
    named = len(inputs) > 1
    options = [
        f"--shape {printable(i.name) + '=' if named else ''}{_example(s)}"
        for s, i in zip(shapes, inputs, strict=True)
    ]
    raise ConfigError(
        f"The model leaves the size of its input open. {_listed(inputs)}\nPass one, such as"
        f" {' '.join(options)}."
    )


def _for_one(info: Input) -> tuple[int | str, ...]:
    return tuple(
        1 if index == 0 and isinstance(n, str) else n for index, n in enumerate(info.shape or ())
    )


def _example(shape: tuple[int | str, ...]) -> str:
    return ",".join(str(n if isinstance(n, int) else 224) for n in shape) or "1,3,224,224"


def group_shapes(
    shapes: Sequence[tuple[int, ...]], inputs: Sequence[Input]
) -> list[tuple[InputShape, ...]]:
    """The shapes of all inputs, in the model's order, once for each set that was given; ConfigError
    that lists the inputs.

    Shapes with names go to the inputs of these names, those without to one input after the other. A
    second round of them is a second set of sizes to compile for.
    """
    marked = [shape if isinstance(shape, InputShape) else InputShape(shape) for shape in shapes]
    named = [bool(shape.name) for shape in marked]
    if any(named) and not all(named):
        raise ConfigError(
            "Some shapes have names and some have none; give NAME=SHAPE for each."
            f" {_listed(inputs)}"
        )
    groups = _by_name(marked, inputs) if all(named) and named else _by_place(marked, inputs)
    return [
        tuple(_fitting(shape, info, inputs) for shape, info in zip(group, inputs, strict=False))
        for group in groups
    ]


def _by_name(shapes: Sequence[InputShape], inputs: Sequence[Input]) -> list[list[InputShape]]:
    names = [info.name for info in inputs]
    unknown = [shape.name for shape in shapes if shape.name not in names]
    if unknown:
        raise ConfigError(f"The model has no input {printable(unknown[0])!r}. {_listed(inputs)}")
    counts = Counter(shape.name for shape in shapes)
    last = max(names.index(name) for name in counts)
    missing = [
        info.name
        for index, info in enumerate(inputs)
        if info.name not in counts and (index < last or not info.optional)
    ]
    if missing:
        raise ConfigError(
            f"The shape of input {printable(missing[0])!r} is missing. {_listed(inputs)}"
        )
    if len(set(counts.values())) != 1:
        raise ConfigError(
            "Each input needs as many shapes as the others, one for each set of sizes."
            f" {_listed(inputs)}"
        )
    rounds = next(iter(counts.values()))
    queues = {
        name: [shape for shape in shapes if shape.name == name] for name in names if name in counts
    }
    return [[queue[turn] for queue in queues.values()] for turn in range(rounds)]


def _by_place(shapes: Sequence[InputShape], inputs: Sequence[Input]) -> list[list[InputShape]]:
    needed = max(1, sum(not info.optional for info in inputs))
    if len(shapes) % needed:
        word = "shape was" if len(shapes) == 1 else "shapes were"
        raise ConfigError(
            f"{len(shapes)} {word} given for {needed} inputs; give one for each. {_listed(inputs)}"
        )
    return [list(shapes[start : start + needed]) for start in range(0, len(shapes), needed)]


def _fitting(shape: InputShape, info: Input, inputs: Sequence[Input]) -> InputShape:
    text = ",".join(map(str, shape))
    if info.shape is not None and len(info.shape) != len(shape):
        raise ConfigError(
            f"Input {printable(info.name)!r} has {len(info.shape)} dimensions, but the shape {text}"
            f" has {len(shape)}. {_listed(inputs)}"
        )
    if shape.dtype and info.dtype and shape.dtype != info.dtype:
        raise ConfigError(
            f"Input {printable(info.name)!r} is {info.dtype}, not {shape.dtype}. {_listed(inputs)}"
        )
    return InputShape(shape, name=info.name, dtype=info.dtype or shape.dtype)


def _listed(inputs: Sequence[Input]) -> str:
    names = "; ".join(f"{info} (optional)" if info.optional else str(info) for info in inputs)
    return f"The model's inputs: {names}." if len(inputs) > 1 else f"The model's input: {names}."
