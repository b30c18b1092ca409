"""Each sticky unit counts once, in bounded memory, and never stops to count.

With sticky assignment all requests of a unit (a user) fall on one arm: they share one coin, so only one of them may be
evidence. Exact memory of who was counted would grow without bound, and a bitmap that fills up ends by admitting nobody.
So a memory goes through epochs, each with a bitmap that is left when it is half full:

- *Epoch 0*: every unit whose bit is not set counts. Its bitmap is kept for good.
- *Epoch k >= 1*, with an empty bitmap: only units whose hash begins with ``k - 1`` zeros and a one (a share of
  ``2**-k``) and whose bit of epoch 0 is not set.

*At most once for ever*: a unit counted in epoch 0 is barred by the bitmap that was kept; one counted in epoch k is
barred within it by its bitmap, and in every other one since the shares are disjoint. *Valid*: whether a unit may count
depends on its hash and on who was counted before, never on the arm of the request in question, so given the past its
arm is the coin that the propensity says. Bits that two units share only leave units out. *Never blind*: a bitmap of
B bits lets B / 2 units count before the first epoch ends, and as many again each time that the number of units which
came along doubles. What is lost is power against a change that comes late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_products import decode_bytes, encode_bytes

Hashes = NDArray[np.uint32]
Booleans = NDArray[np.bool_]

SPLIT_BYTES = 256
"""Of each of the two bitmaps behind the split check."""
BAD_BYTES, BAD_BYTES_OF_MANY = 576, 288
"""Of each of the two bitmaps behind the guardrails, all of them together (of more than six: less, as their own evidence
fills the state). A frequent bad event must not use up the memory of a rare one, so each guardrail has its own part."""
LAST_EPOCH = 31
"""Reached after 2**31 units and more; its bitmap may fill up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """Who was counted. ``None``: nobody yet.

    :param size: bytes of a bitmap.
    :param kept: the bitmap of epoch 0, from epoch 1 on.
    :param current: the bitmap of this epoch.
    """

    size: int
    epoch: int = 0
    kept: bytes | None = None
    current: bytes | None = None

    def to_json(self) -> list[Any]:
        """Plain JSON types, exact."""
        return [self.epoch, *(None if bits is None else encode_bytes(bits) for bits in (self.kept, self.current))]

    @classmethod
    def from_json(cls, record: list[Any], *, size: int) -> Units:
        """Inverse of :meth:`to_json`."""
        kept, current = (None if bits is None else decode_bytes(bits) for bits in record[1:])
        return cls(size=size, epoch=record[0], kept=kept, current=current)


def bytes_of_each(guardrails: int) -> int:
    """Bytes of a guardrail's bitmap in a plan with so many guardrails."""
    return (BAD_BYTES if guardrails <= 6 else BAD_BYTES_OF_MANY) // guardrails


class UnitMemory:
    """Decides, unit by unit in arrival order, who counts. Lives for one update."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._epoch = units.epoch
        self._kept = _unpacked(units.kept, units.size)
        self._current = _unpacked(units.current, units.size)
        self._used = units.current is not None

    def admit(self, hashes: Hashes, wanted: Booleans | None = None) -> tuple[Booleans, Booleans]:
        """Who counts, and who is in the sample. Those who count are remembered.

        :param hashes: shape (n,), of the units in arrival order.
        :param wanted: shape (n,), false: does not count for another reason, and is not remembered.
        :return: two arrays of shape (n,): counts now; in the sample of its epoch, counted before or not.
        """
        counts, sampled = np.zeros(len(hashes), dtype=np.bool_), np.zeros(len(hashes), dtype=np.bool_)
        begin = 0
        while begin < len(hashes):
            self._used = True
            part = hashes[begin:]
            in_sample, positions = self._sample(part), self._positions(part, epoch=self._epoch)
            new = in_sample & ~self._current[positions]
            if wanted is not None:
                new &= wanted[begin:]
            rows = np.flatnonzero(new)
            _, first = np.unique(positions[rows], return_index=True)
            admitted = rows[np.sort(first)]
            room = len(self._current) // 2 - int(np.count_nonzero(self._current))
            full = self._epoch < LAST_EPOCH and len(admitted) >= room
            stop = int(admitted[room - 1]) + 1 if full else len(part)
            admitted = admitted[:room] if full else admitted
            counts[begin + admitted] = True
            sampled[begin : begin + stop] = in_sample[:stop]
            self._current[positions[admitted]] = True
            if full:
                self._next_epoch()
            begin += stop
        return counts, sampled

    def close(self) -> Units:
        """The state to keep."""
        if not self._used:
            return self._units
        return Units(
            size=self._units.size,
            epoch=self._epoch,
            kept=np.packbits(self._kept).tobytes() if self._epoch else None,
            current=np.packbits(self._current).tobytes(),
        )

    def _sample(self, hashes: Hashes) -> Booleans:
        if not self._epoch:
            return np.ones(len(hashes), dtype=np.bool_)
        chosen = _mixed(hashes, salt=0) >> np.uint32(32 - self._epoch) == 1
        barred = self._kept[self._positions(hashes, epoch=0)]
        return np.asarray(chosen & ~barred, dtype=np.bool_)

    def _positions(self, hashes: Hashes, *, epoch: int) -> NDArray[np.int64]:
        mixed = _mixed(hashes, salt=epoch + 1).astype(np.uint64)
        return (mixed * np.uint64(8 * self._units.size) >> np.uint64(32)).astype(np.int64)

    def _next_epoch(self) -> None:
        if not self._epoch:
            self._kept = self._current
        self._epoch += 1
        self._current = np.zeros(8 * self._units.size, dtype=np.bool_)


def _unpacked(bits: bytes | None, size: int) -> Booleans:
    if bits is None:
        return np.zeros(8 * size, dtype=np.bool_)
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8)).astype(np.bool_)


def _mixed(hashes: Hashes, *, salt: int) -> Hashes:
    """Another hash for each salt, by the finaliser of MurmurHash3 (Appleby 2011, public domain)."""
    mixed = hashes ^ np.uint32(salt * 0x9E3779B9 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    return np.asarray(mixed ^ (mixed >> np.uint32(16)), dtype=np.uint32)
