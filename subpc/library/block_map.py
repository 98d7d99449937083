"""Which blocks of a layer a 1xN pattern keeps, as short text: bits, deflated, in base64. Standard
library and numpy."""

import base64
import binascii
import zlib

import numpy as np
import numpy.typing as npt

from subpc.errors import ModelFileError

# (groups, channels) of the largest layer that any network has; what claims more is no pattern.
MAX_BLOCKS = 1 << 26


def pack_blocks(kept: npt.NDArray[np.bool_]) -> str:
    """The text for a pattern of shape (groups, channels)."""
    return base64.b64encode(zlib.compress(np.packbits(kept, axis=None).tobytes(), 9)).decode()


def unpack_blocks(text: str, groups: int, channels: int) -> npt.NDArray[np.bool_]:
    """The inverse of pack_blocks; ModelFileError for text that is no pattern of this shape."""
    size = groups * channels
    try:
        bits = (
            _inflate(base64.b64decode(text, validate=True), -(-size // 8))
            if 0 < size <= MAX_BLOCKS
            else b""
        )
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ModelFileError(
            f"a block map cannot be read ({error}); compile the model again"
        ) from error
    if not bits or len(bits) != -(-size // 8):
        raise ModelFileError(
            f"a block map is not of {groups} x {channels} blocks; compile the model again"
        )
    return (
        np.unpackbits(np.frombuffer(bits, np.uint8), count=size)
        .reshape(groups, channels)
        .astype(bool)
    )


def _inflate(data: bytes, size: int) -> bytes:
    """Never more than one byte over the size that is expected: the text may come from anywhere."""
    return zlib.decompressobj().decompress(data, size + 1)
