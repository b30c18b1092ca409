"""How many answers users judged since the champion's training, counted on from check to check."""

from __future__ import annotations

from dataclasses import replace

from genai_operators.operators.drift_periods import Feedback
from genai_operators.release.ledger import LedgerEntry
from genai_operators.serving import batches
from genai_operators.store import Store, locate

MOST_BATCHES = 20_000
"""Batches that one check counts at most, the newest; a watch that starts long after the training counts too few."""


def learnt_through(dataset_uri: str) -> int:
    """Number of the last batch of traffic that a data set learnt from; -1 when it learnt from none."""
    place, path = locate(dataset_uri)
    feedback = (place.find_json(f"{path}/stats.json") or {}).get("feedback")
    return int(feedback["last"]) if feedback else -1


def count_feedback(store: Store, champion: LedgerEntry, *, known: Feedback, through: int) -> Feedback:
    """Count on to a batch, included. Feedback that came before the champion's promotion is about another's answers.

    :param known: what is counted already.
    """
    labelled, rated, wrong = known.labelled, known.rated, known.wrong
    for number in range(max(known.through + 1, through - MOST_BATCHES + 1), through + 1):
        for line in batches.read_batch(store, champion.model, "facts", number) or ():
            if line.get("kind") != "feedback":
                continue
            is_wrong = line["rating"] == "wrong"
            labelled += not is_wrong or bool(line["corrected"])
            if line["at"] >= champion.at:
                rated += 1
                wrong += is_wrong
    return replace(known, through=max(known.through, through), labelled=labelled, rated=rated, wrong=wrong)
