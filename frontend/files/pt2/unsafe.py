"""The refusal of an exported program."""

from subpc.errors import ModelFileError


class Unsafe(ModelFileError):
    """Why a file is refused, in words that follow "because"."""
