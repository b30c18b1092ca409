"""What a controller works with. The layers above open it from their connections; tests, from a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from genai_operators.serving.contract import Deployment, Serving
from genai_operators.store import Store


class Aliases(Protocol):
    """Where others look up who is champion; a cache of the ledger."""

    def set_champion(self, model: str, version: int) -> bool:
        """``True`` if it moved."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a controller works with.

    :param verify: checks a deployment's files before they are served; raises what
        :func:`genai_operators.release.verification.verify_package` raises.
    """

    store: Store
    serving: Serving
    aliases: Aliases
    verify: Callable[[Deployment], None]
    clock: Callable[[], float] = time.time
