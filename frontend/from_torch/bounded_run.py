"""Running a network from a file once: each operator's result is known in shape, and bounded, before
it is made.

One line, such as `torch.ones(2**33)`, `x.repeat(...)` or `x.expand(...).contiguous()`, asks for
more memory than a machine has.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from subpc.errors import UnsupportedModelError
from subpc.frontend.limits import CONSTANTS, COPIES_OF_WEIGHTS, MAX_ELEMENTS

# All that one run makes of its inputs: so many elements, and so many times the inputs'. Networks of
# 500 layers make less than a tenth of it.
_PER_INPUT_ELEMENT = 4096
# Their results have values in their shapes, but are never larger than what they are made of, and
# its indices.
_SHRINKING = frozenset(
    {"nonzero", "masked_select", "index", "_unique", "_unique2", "unique_dim", "unique_consecutive"}
)


def run_bounded(
    module: torch.nn.Module, example_inputs: tuple[Any, ...], weights: Iterable[torch.Tensor]
) -> None:
    """Run `module` once; UnsupportedModelError before it makes more elements than networks do, or
    whatever it raises itself.

    example_inputs: tensors of any shape, and constants; weights: what the module holds, by which
    it may make more.
    """
    given = sum(value.numel() for value in example_inputs if isinstance(value, torch.Tensor))
    bound = _Bounded(given, sum(value.numel() for value in weights))
    try:
        with bound, torch.no_grad(), _without_log():
            module(*example_inputs)
    except Exception:
        # TorchScript's interpreter has made another exception of it.
        if bound.refusal is not None:
            raise bound.refusal from None
        raise


@contextmanager
def _without_log() -> Iterator[None]:
    """PyTorch logs where shapes do not fit, beside the error that it raises."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


class _Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, inputs: int, weights: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refusal: UnsupportedModelError | None = None
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.from_nothing = CONSTANTS + COPIES_OF_WEIGHTS * weights
        self.from_tensors = MAX_ELEMENTS + COPIES_OF_WEIGHTS * weights + _PER_INPUT_ELEMENT * inputs

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """One operator: its result's shapes first."""
        kwargs = kwargs or {}
        self._count(func, args, kwargs)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        try:
            sizes = list(self._sizes(func, args, kwargs))
        except DataDependentOutputException:
            return  # a number
        except DynamicOutputShapeException:
            if str(func).split(".")[1] not in _SHRINKING:
                raise self._refused(f"{func} makes as many elements as its input says") from None
            return
        if any(size > MAX_ELEMENTS for size in sizes):
            raise self._refused(
                f"{func} makes {max(sizes)} elements; at most {MAX_ELEMENTS} are accepted"
            )
        if func.is_view:
            return
        if any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
            self.from_tensors -= sum(sizes)
        else:
            self.from_nothing -= sum(sizes)
        if min(self.from_tensors, self.from_nothing) < 0:
            raise self._refused(
                f"{func} makes {sum(sizes)} more elements; so many are not accepted for inputs and"
                " weights of this size"
            )

    def _sizes(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[int]:
        """Elements of each tensor that an operator would return."""
        with self.fake:
            known = tree_map_only(torch.Tensor, self.fake.from_tensor, (args, kwargs))
            for leaf in tree_leaves(func(*known[0], **known[1])):
                if isinstance(leaf, torch.Tensor):
                    yield leaf.numel()

    def _refused(self, reason: str) -> UnsupportedModelError:
        self.refusal = UnsupportedModelError(
            f"{reason}.\nGive a smaller input shape, or export the network without it."
        )
        return self.refusal
