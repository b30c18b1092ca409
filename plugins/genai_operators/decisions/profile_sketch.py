"""A mergeable histogram of real numbers on the grid of floating-point numbers themselves.

A double maps to an unsigned 64-bit key that sorts as the number does. A sketch keeps the distinct keys and their
counts; when there are more than ``BUCKETS`` of them it drops low bits of the key, one at a time, until they fit.
Because buckets nest, the number of bits dropped depends only on the values seen, never on the order or the partition in
which they came: merging is exact, associative and commutative, and small or tied data (up to ``BUCKETS`` distinct
values) stay exact.

The grid is fine where doubles are dense, so for a column of one scale the largest bucket holds about 0.2 % of the rows
(1M standard normals), far away values cost one bucket each, and no range has to be known beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKETS = 5_000
"""Most buckets of a sketch; also the number of distinct values up to which it is exact."""

_BLOCK = 1 << 14
"""Keys looked at in one go: they fit the cache."""

_PREFIXES = 1 << 16
_CELLS = 1 << 16
"""Counters of the second pass over many values: few enough for the cache."""
COUNTED_FROM = 1 << 15
"""Fewer values are sorted as fast as they are counted."""

_SIGN = np.uint64(1 << 63)
_ALL = np.uint64((1 << 64) - 1)


@dataclass(frozen=True, eq=False)
class Sketch:
    """Ascending keys (shape (k,)), rows in each (shape (k,), int64) and how many low key bits were dropped."""

    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]
    shift: int

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    @property
    def exact(self) -> bool:
        """Does every bucket stand for one value?"""
        return self.shift == 0

    def values(self) -> NDArray[np.float64]:
        """The number in the middle of each bucket; the value itself while exact. Shape (k,)."""
        if self.shift == 0:
            return decode(self.keys)
        return decode(self.keys + np.uint64(1 << (self.shift - 1)))

    def coarsened(self, shift: int) -> Sketch:
        """The same rows on a grid of at least ``shift`` dropped bits."""
        if shift <= self.shift:
            return self
        return _collapse(self.keys, self.counts, shift)


def encode_sorted(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Keys that sort as the numbers do; -0.0 counts as 0.0. Overwrites ``values``, ascending, shape (n,)."""
    negative = int(np.searchsorted(values, 0.0, side="left"))
    zeros = int(np.searchsorted(values, 0.0, side="right"))
    values[negative:zeros] = 0.0
    keys = values.view(np.uint64)
    keys[:negative] ^= _ALL
    keys[negative:] |= _SIGN
    return keys


def decode(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The numbers behind keys, finite even for a key beyond the largest double."""
    bits = np.where(keys & _SIGN, keys ^ _SIGN, keys ^ _ALL)
    largest = np.finfo(np.float64).max
    return np.nan_to_num(bits.view(np.float64), nan=largest, posinf=largest, neginf=-largest)


def sketch(values: NDArray[np.float64]) -> Sketch:
    """Sketch finite numbers, shape (n,). Two counting passes, or one sort where many values tie; one copy of them.

    The caller has removed what is missing and refused infinities.
    """
    if len(values) >= COUNTED_FROM and (counted := _counted(values)) is not None:
        return counted
    keys = encode_sorted(np.sort(values))
    shift = _shift_needed(keys)
    keys >>= np.uint64(shift)
    starts = _starts(keys)
    return Sketch(keys[starts] << np.uint64(shift), np.diff(starts, append=len(keys)).astype(np.int64), shift)


def sketch_counts(values: NDArray[np.float64], counts: NDArray[np.int64]) -> Sketch:
    """The sketch of rows that are counted already.

    :param values: distinct and ascending, shape (k,), finite. :param counts: rows of each, shape (k,); none is fine.
    """
    kept = counts > 0
    return fit(Sketch(encode_sorted(values[kept].astype(np.float64)), counts[kept].astype(np.int64), 0))


def merge_sketches(first: Sketch, second: Sketch) -> Sketch:
    """The sketch of both samples together; exactly the one that a single pass over all rows gives."""
    shift = max(first.shift, second.shift)
    first, second = first.coarsened(shift), second.coarsened(shift)
    keys, inverse = np.unique(np.concatenate([first.keys, second.keys]), return_inverse=True)
    counts = np.bincount(inverse, weights=np.concatenate([first.counts, second.counts]), minlength=len(keys))
    return fit(Sketch(keys, counts.astype(np.int64), shift))


def align(first: Sketch, second: Sketch) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], bool]:
    """Both samples on one grid: bucket values, counts of each side (all of shape (k,)), and whether exact."""
    shift = max(first.shift, second.shift)
    first, second = first.coarsened(shift), second.coarsened(shift)
    keys = np.union1d(first.keys, second.keys)
    counts = np.zeros((2, len(keys)), dtype=np.int64)
    for row, part in zip(counts, (first, second), strict=True):
        row[np.searchsorted(keys, part.keys)] = part.counts
    grid = Sketch(keys, counts[0], shift)
    return grid.values(), counts[0], counts[1], grid.exact


def fit(whole: Sketch) -> Sketch:
    """Drop as few low bits as bring the sketch to ``BUCKETS`` buckets."""
    return _collapse(whole.keys, whole.counts, max(whole.shift, _shift_needed(whole.keys)))


def _counted(values: NDArray[np.float64]) -> Sketch | None:
    """What sorting would give, from counts of leading key bits; ``None`` where those tell too few values apart.

    The first pass finds the 16-bit prefixes in use, the second counts as many more bits as ``_CELLS`` counters allow.
    """
    bits = (values + 0.0).view(np.int64)  # -0.0 counts as 0.0
    top = (bits >> np.int64(32)).astype(np.int32)
    top ^= (top >> np.int32(31)) | np.int32(-(1 << 31))
    leading = top.view(np.uint32)
    prefixes = leading >> np.uint32(16)
    used = np.flatnonzero(np.bincount(prefixes, minlength=_PREFIXES))
    more = min(16, (_CELLS // len(used)).bit_length() - 1)
    first_cell = np.zeros(_PREFIXES, dtype=np.uint32)
    first_cell[used] = np.arange(len(used), dtype=np.uint32) << np.uint32(more)
    last = np.uint32((1 << more) - 1)
    counts = np.bincount(first_cell[prefixes] | ((leading >> np.uint32(16 - more)) & last))
    filled = np.flatnonzero(counts)
    if len(filled) <= BUCKETS:
        return None
    shift = 48 - more
    keys = ((used[filled >> more] << more) | (filled & int(last))).astype(np.uint64) << np.uint64(shift)
    return fit(Sketch(keys, counts[filled].astype(np.int64), shift))


def _collapse(keys: NDArray[np.uint64], counts: NDArray[np.int64], shift: int) -> Sketch:
    coarse = keys >> np.uint64(shift)
    starts = _starts(coarse)
    return Sketch(coarse[starts] << np.uint64(shift), np.add.reduceat(counts, starts), shift)


def _starts(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where a run of equal keys begins."""
    if not len(keys):
        return np.empty(0, dtype=np.int64)
    starts: NDArray[np.int64] = np.append(0, np.flatnonzero(keys[1:] != keys[:-1]) + 1)
    return starts


def _shift_needed(keys: NDArray[np.uint64]) -> int:
    """How many low bits of ascending keys must go so that at most ``BUCKETS`` distinct ones are left.

    Two neighbours stay apart at a shift of s while their keys differ in bit s or above.
    """
    if len(keys) <= BUCKETS:
        return 0
    widths = np.zeros(65, dtype=np.int64)
    for start in range(0, len(keys) - 1, _BLOCK):
        block = keys[start : start + _BLOCK + 1]
        widths += np.bincount(_bit_length(block[1:] ^ block[:-1]), minlength=65)
    apart = np.cumsum(widths[::-1])[::-1]  # apart[w]: neighbours whose difference has at least w bits
    return int(np.flatnonzero(apart[1:] + 1 <= BUCKETS)[0]) if apart[64] < BUCKETS else 64


def _bit_length(words: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Position of the highest set bit, 1-based; 0 for 0."""
    high, low = (words >> np.uint64(32)).astype(np.float64), (words & np.uint64(0xFFFFFFFF)).astype(np.float64)
    length: NDArray[np.int32] = np.where(high > 0, 32 + np.frexp(high)[1], np.frexp(low)[1])
    return length
