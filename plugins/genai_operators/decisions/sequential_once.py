"""What counts once: a burst of failures with one cause. And how many users met the canary.

An outage of one replica fails hundreds of requests that are not independent; a test that takes them for independent
rolls identical arms back in half of all releases. A failure with a ``cause`` therefore counts as harm once an incident:
an incident goes on while failures of its cause follow within the plan's window, and for at most :data:`LONGEST_WINDOWS`
windows, for a server that stays down is no longer an accident. With that limit, and not with a longer one, an arm with
more traffic never opens fewer incidents than one with less (found by simulation of failures at random times): a cause
that both arms share never makes the one with less traffic look worse.

Memory is bounded, for the state is stored with every look. Causes that do not fit share one incident for each
guardrail. Distinct users are counted by the smallest hashes (exact up to their number, then a sketch).

Source of the sketch: Bar-Yossef et al. 2002, "Counting distinct elements in a data stream".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_products import decode_bytes, encode_bytes

Hashes = NDArray[np.uint32]

OPEN_INCIDENTS = 16
"""Incidents remembered at one time; further causes share one entry for each guardrail."""
LONGEST_WINDOWS = 2.0
SMALLEST_HASHES = 128


_SPREAD = 0x9E3779B1


def hash_of(text: str, *, salt: int = 0) -> int:
    """32 bits that are the same on every machine."""
    return (zlib.crc32(text.encode("utf-8"), salt) * _SPREAD) & 0xFFFFFFFF


def hashes_of(units: Sequence[str | None]) -> tuple[Hashes, NDArray[np.bool_]]:
    """Hashes of the units, and where there is one."""
    known = np.ones(len(units), dtype=np.bool_)
    texts = list(units)
    if None in texts:
        known = np.array([unit is not None for unit in texts], dtype=np.bool_)
        texts = [unit or "" for unit in texts]
    checksums = np.fromiter(
        map(zlib.crc32, map(str.encode, cast("list[str]", texts))), dtype=np.uint32, count=len(texts)
    )
    return checksums * np.uint32(_SPREAD), known


_INCIDENT = struct.Struct("<Idd")


@dataclass(frozen=True, kw_only=True)
class Incidents:
    """Incidents, the open ones among them: (guardrail and cause, hashed; arrival of its first and of its last failure).

    :param window_s: an incident ends when no failure followed for so long.
    """

    window_s: float
    opened: tuple[tuple[int, float, float], ...] = ()

    def to_json(self) -> str:
        """Exact."""
        return encode_bytes(b"".join(_INCIDENT.pack(*incident) for incident in self.opened))

    @classmethod
    def from_json(cls, record: str, *, window_s: float) -> Incidents:
        """Inverse of :meth:`to_json`."""
        return cls(window_s=window_s, opened=tuple(_INCIDENT.iter_unpack(decode_bytes(record))))


class IncidentBook:
    """Decides, failure by failure in arrival order, whether one opens an incident. Lives for one update."""

    def __init__(self, incidents: Incidents) -> None:
        self._window_s = incidents.window_s
        self._longest_s = LONGEST_WINDOWS * incidents.window_s
        self._opened = {key: (first, last) for key, first, last in incidents.opened}
        self._keys: dict[tuple[int, str], int] = {}

    def opens(self, guardrail: int, cause: str, arrival: float) -> bool:
        """True if this failure counts: it is the first of its incident."""
        key = self._keys.get((guardrail, cause))
        if key is None:
            key = self._keys[guardrail, cause] = hash_of(cause, salt=guardrail + 1)
        if key not in self._opened and len(self._opened) >= OPEN_INCIDENTS:
            for old in [old for old, times in self._opened.items() if not self._lasts(times, arrival)]:
                del self._opened[old]
            if len(self._opened) >= OPEN_INCIDENTS:
                key = 0xFFFFFFFF - guardrail  # for every cause beyond the memory
        times = self._opened.get(key)
        if times is not None and self._lasts(times, arrival):
            self._opened[key] = (times[0], arrival)
            return False
        self._opened.pop(key, None)
        self._opened[key] = (arrival, arrival)
        return True

    def _lasts(self, times: tuple[float, float], arrival: float) -> bool:
        first, last = times
        return arrival - last < self._window_s and arrival - first < self._longest_s

    def close(self) -> Incidents:
        """The state to keep."""
        return Incidents(window_s=self._window_s, opened=tuple((key, *times) for key, times in self._opened.items()))


def smallest(known: Hashes, more: Hashes) -> Hashes:
    """The smallest distinct hashes of both, sorted, at most :data:`SMALLEST_HASHES`."""
    return np.unique(np.concatenate([known, more]))[:SMALLEST_HASHES]


def distinct(hashes: Hashes) -> tuple[float, float]:
    """Number of distinct units behind the smallest hashes: (estimate, upper bound of about 97.5 %). Exact while few."""
    if len(hashes) < SMALLEST_HASHES:
        return float(len(hashes)), float(len(hashes))
    estimate = (SMALLEST_HASHES - 1) * 2.0**32 / (float(hashes[-1]) + 1.0)
    return estimate, estimate * (1 + 2 / math.sqrt(SMALLEST_HASHES))


def encode_hashes(hashes: Hashes) -> str:
    """Little-endian 32-bit integers in base 85."""
    return encode_bytes(hashes.astype("<u4").tobytes())


def decode_hashes(text: str) -> Hashes:
    """Inverse of :func:`encode_hashes`."""
    return np.frombuffer(decode_bytes(text), dtype="<u4").astype(np.uint32)
