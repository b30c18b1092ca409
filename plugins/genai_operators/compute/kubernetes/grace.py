"""How long a pod gets between SIGTERM and SIGKILL: at least twice what a checkpoint has taken."""

from __future__ import annotations

from genai_operators.compute.checkpoint_time import SAFETY, longest_checkpoint_s
from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes.settings import DEFAULT_GRACE_S


def grace_s(attempt: Attempt, chosen: float | None) -> float:
    """Seconds for the last checkpoint.

    :param chosen: by the user; it holds whatever was measured, and the supervisor warns where it is too short.
    """
    return chosen if chosen is not None else max(DEFAULT_GRACE_S, SAFETY * longest_checkpoint_s(attempt))
