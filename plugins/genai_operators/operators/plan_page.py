"""The page of a retraining's plan: what is computed, on which GPUs, and what the release can be expected to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genai_operators.decisions.planner_forecast import Forecast
from genai_operators.report import Page
from genai_operators.store import Store, sha256_bytes

if TYPE_CHECKING:
    from genai_operators.operators.gpu_choice import GpuChoice

DIGEST_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class PlanPage:
    """What the page shows.

    :param reason: why it runs, or what the policy would say of it.
    :param headings: of the workloads' table. :param forecast: ``None`` without a champion or traffic.
    :param gpu_note: why there is no GPU plan, or whether it is an outlook only.
    """

    model: str
    subtitle: str
    reason: str
    headings: Sequence[str]
    workloads: Sequence[Sequence[str]]
    release: Sequence[str]
    deadline_s: float
    forecast: Forecast | None = None
    gpus: GpuChoice | None = None
    gpu_note: str = ""

    def html(self) -> str:
        """Self-contained."""
        from genai_operators.gpu_plan_report import add_gpu_plan
        from genai_operators.release.forecast_report import add_forecast

        page = Page(f"Plan of {self.model}", self.subtitle)
        page.heading("Retrain or wait?").text(self.reason)
        page.heading("Workloads").table(self.headings, self.workloads)
        page.heading("Release")
        drawn = set() if self.forecast is None else set(self.forecast.render_text().splitlines())
        for line in self.release:
            if line not in drawn:
                page.text(line)
        if self.forecast is not None:
            add_forecast(page, self.forecast, deadline_s=self.deadline_s)
        if self.gpus is not None or self.gpu_note:
            page.heading("GPUs")
        if self.gpu_note:
            page.text(self.gpu_note)
        if self.gpus is not None:
            add_gpu_plan(page, self.gpus.plan)
            for note in self.gpus.notes:
                page.text(note)
        return page.html()

    def save(self, store: Store) -> str:
        """Store it, once for the same content; its path in the store."""
        data = self.html().encode()
        path = f"plans/{self.model}/{sha256_bytes(data)[:DIGEST_LENGTH]}.html"
        store.create(path, data)
        return path
