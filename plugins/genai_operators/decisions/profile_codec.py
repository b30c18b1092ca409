"""Integer arrays as short text: sorted keys as gaps, bytes transposed, deflated, base64. Lossless."""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np
from numpy.typing import NDArray

from genai_operators.exceptions import DataError

COMPRESSION_LEVEL = 6


def pack(values: NDArray[np.uint64]) -> str:
    """Text of an unsigned 64-bit array, shape (n,). Bytes of equal weight lie together, so that they deflate well."""
    columns = np.ascontiguousarray(values, dtype="<u8").view(np.uint8).reshape(-1, 8).T
    return base64.b64encode(zlib.compress(np.ascontiguousarray(columns).tobytes(), COMPRESSION_LEVEL)).decode("ascii")


def unpack(text: str) -> NDArray[np.uint64]:
    """The array that :func:`pack` was given.

    :raises DataError: the text is not what ``pack`` writes (truncated or edited).
    """
    try:
        raw = zlib.decompress(base64.b64decode(text, validate=True))
        columns = np.frombuffer(raw, dtype=np.uint8).reshape(8, -1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise DataError(f"a packed array of a profile is damaged ({error}); profile the data again") from error
    return np.ascontiguousarray(columns.T).view("<u8").reshape(-1).astype(np.uint64)


def pack_sorted(keys: NDArray[np.uint64]) -> str:
    """Like :func:`pack` for ascending keys: stores the gaps, which are short."""
    return pack(np.diff(keys, prepend=np.uint64(0)))


def unpack_sorted(text: str) -> NDArray[np.uint64]:
    """The ascending keys that :func:`pack_sorted` was given. :raises DataError: damaged text."""
    return np.cumsum(unpack(text), dtype=np.uint64)
