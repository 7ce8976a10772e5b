"""Files of MATLAB, of the versions before 7.3 by scipy, of 7.3 by h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def read_mat(path: Path) -> dict[str, Any]:
    """Reads a file of MATLAB, up to version 7.2: numbers, texts and cells, no code.

    Raises:
        ValueError: It is none.
    """
    from scipy.io import loadmat

    try:
        contents: dict[str, Any] = loadmat(path)
    except OSError:
        raise
    except Exception as error:  # scipy raises errors of many types
        raise ValueError(f"{path}: no file of MATLAB 7.2 or before ({error})") from error
    return contents


def hdf5() -> Any:
    """Returns h5py, which reads files of MATLAB 7.3.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "files of MATLAB 7.3 are read by h5py: pip install h5py, or the extra 'mat'"
        ) from error
    return h5py


def whole_numbers(values: Any) -> Any:
    """Turns an array of MATLAB's into int64; small unsigned types would overflow below 0."""
    return np.asarray(values).astype(np.int64)
