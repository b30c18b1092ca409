"""Ctrl-C, ``kill`` and a closed terminal end what runs once, and disturb nobody who cleans up after it."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self

#: What a person, a service manager and a closed terminal send.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """The first of :data:`SIGNALS` raises ``KeyboardInterrupt``; those after it do nothing.

    A second Ctrl-C would otherwise end the one who stops the platform, and leave half of it running. A handler ignores
    them, not ``SIG_IGN``: that would be inherited by every process that is started meanwhile.
    """

    def __init__(self) -> None:
        self._ignored = False

    @classmethod
    def installed(cls) -> Self:
        """For the rest of this process."""
        interrupts = cls()
        for number in SIGNALS:
            signal.signal(number, interrupts.handle)
        return interrupts

    def ignore(self) -> None:
        """From here on none of them does anything: what is left is to clean up."""
        self._ignored = True

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Python calls this when one arrives. :raises KeyboardInterrupt: for the first."""
        if not self._ignored:
            self._ignored = True
            raise KeyboardInterrupt
