"""What a pass does not expect becomes an error that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from subpc.errors import CompileError, SubpcError
from subpc.text import first_line


@contextmanager
def named_defects() -> Iterator[None]:
    """Turn errors of TVM and of Python inside of the passes into a CompileError."""
    try:
        yield
    except (SubpcError, MemoryError):
        raise
    except Exception as error:
        raise CompileError(
            f"the network cannot be lowered to kernels: {first_line(error)}\n"
            "Please report it with the model; --debug-dump FOLDER writes the program after each "
            "phase."
        ) from error
