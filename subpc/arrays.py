"""Archives of NumPy arrays under any names, also those that `numpy.savez` keeps for its own arguments."""

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np


def save_arrays(file: str | os.PathLike[str] | Any, arrays: Mapping[str, np.ndarray]) -> None:
    """What numpy.savez(file, **arrays) writes, for numpy.load: never a pickle, and files are not renamed."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            # A zip archive ends a name where it has a zero.
            with archive.open(name.replace("\0", r"\x00") + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
