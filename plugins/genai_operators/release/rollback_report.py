"""The report of a rollback: who reigned, who does now, why, and on what evidence. Written from the ledger alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from genai_operators.release.ledger import Ledger, LedgerEntry, champions
from genai_operators.report import Page, report_path
from genai_operators.store import Store


def write_rollback_report(store: Store, model: str, *, epoch: int) -> str:
    """Write the report of the rollback that is entry ``epoch`` of the ledger; its path in the store.

    Written again after a crash it is the same page, whatever came after that epoch.
    """
    path = report_path(model, f"rollback-{epoch:08d}")
    entries = [entry for entry in Ledger(store, model).verify() if entry.epoch <= epoch]
    store.put(path, rollback_page(entries).html().encode())
    return path


def previous_version(entries: Sequence[LedgerEntry]) -> int | None:
    """The champion that the last of these entries took the traffic from; ``None`` if there was none."""
    before = champions(entries[:-1])
    return before[-1].version if before else None


def rollback_page(entries: Sequence[LedgerEntry]) -> Page:
    """The page. :param entries: the ledger up to the rollback, oldest first."""
    entry, previous = entries[-1], previous_version(entries)
    page = Page(f"Rollback of {entry.model} to v{entry.version}", f"ledger epoch {entry.epoch}")
    page.table(
        ("", ""),
        [
            ("champion before", "none" if previous is None else f"v{previous}"),
            ("champion now", f"v{entry.version}, digest {entry.digest[:12]}"),
            ("reason", entry.reason),
            ("asked for by", entry.actor),
            ("when (UTC)", _utc(entry.at)),
        ],
    )
    page.heading("What stands with the version").table(("evidence", ""), sorted(entry.evidence.items()))
    page.heading("The ledger until then").table(
        ("epoch", "what", "version", "when (UTC)", "reason"),
        [(str(one.epoch), one.action, f"v{one.version}", _utc(one.at), one.reason) for one in reversed(entries)],
    )
    return page


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
