"""Bring the gateway to what the ledger says, one harmless step at a time."""

from __future__ import annotations

from genai_operators.exceptions import ServingFailed
from genai_operators.serving.contract import Deployment, Serving, Slot


def converge(serving: Serving, deployment: Deployment) -> bool:
    """One step towards ``deployment`` being the champion, without losing a request; ``True`` once it is.

    It starts in the canary slot without traffic, and takes everything over once it answers.
    """
    status = serving.status()
    if status.champion is not None and status.champion.id == deployment.id:
        return True
    if status.champion is None:
        serving.deploy(deployment, slot=Slot.CHAMPION.value)
        return True
    if status.canary is None or status.canary.id != deployment.id:
        serving.deploy(deployment, slot=Slot.CANARY.value)
        return False
    try:
        if not serving.ready(Slot.CANARY.value):
            return False
    except ServingFailed:
        if _is_champion(serving, deployment):  # another controller was faster; the canary's slot is empty by now
            return True
        raise
    serving.promote()
    return True


def _is_champion(serving: Serving, deployment: Deployment) -> bool:
    champion = serving.status().champion
    return champion is not None and champion.id == deployment.id
