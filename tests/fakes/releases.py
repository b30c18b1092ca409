"""Releases to test with: a champion in place, a candidate, a plan with small figures, and the parts that drive it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_operators.compute.owners import Owner
from genai_operators.release.canary import Controller
from genai_operators.release.ledger import Action, Ledger, LedgerEntry
from genai_operators.release.parts import Parts
from genai_operators.release.plan import GuardrailPlan, ReleasePlan, Step, release_id
from genai_operators.serving.contract import Deployment
from genai_operators.store import Store
from tests.fakes.serving import START, FakeAliases, FakeServing

MODEL = "bot"
POLL_S = 2.0
OWNER = Owner(dag_id="bot__retrain", run_id="manual__1", task_id="release")


def deployment(version: int, runtime: str = "standard") -> Deployment:
    """A version of the model; its files do not exist, and the fake does not look."""
    return Deployment(
        model=MODEL, version=version, digest=f"digest-{version}", model_dir=f"/models/{version}", runtime=runtime
    )


@dataclass
class Bench:
    """A store, a fake serving target and a fake registry in one folder."""

    folder: Path

    def __post_init__(self) -> None:
        self.store = Store.open(self.folder / "store")
        self.serving = FakeServing(self.folder / "serving")
        self.aliases = FakeAliases(self.folder)
        self.ledger = Ledger(self.store, MODEL, clock=self.serving.clock)

    def parts(self, **changes: Any) -> Parts:
        """What a controller needs; nothing is verified here unless a test says so."""
        return Parts(
            **{
                "store": self.store,
                "serving": self.serving,
                "aliases": self.aliases,
                "verify": lambda _deployment: None,
                "clock": self.serving.clock,
                **changes,
            }
        )

    def crown(self, version: int = 1) -> Deployment:
        """Make a version champion, in the ledger and in the gateway."""
        champion = deployment(version)
        self.ledger.append(
            Action.PROMOTE,
            version,
            champion.digest,
            actor="a test",
            reason="first",
            evidence={"runtime": champion.runtime, "release": f"first-{version}"},
            expected_epoch=self.ledger.epoch(),
        )
        self.serving.deploy(champion, slot="champion")
        self.serving.sleep(10)
        self.aliases.set_champion(MODEL, version)
        return champion

    def plan(self, *, candidate: int = 2, champion: Deployment | None = None, **changes: Any) -> ReleasePlan:
        """A frozen plan: 5 %, 25 %, 50 % with errors and invalid output watched."""
        target = deployment(candidate)
        owner = changes.pop("owner", OWNER)
        fields = {
            "release": release_id(owner, target),
            "model": MODEL,
            "owner": owner,
            "created_at": START,
            "candidate": target,
            "champion": champion,
            "ledger_epoch": self.ledger.epoch(),
            "since": self.serving.position(),
            "steps": tuple(
                Step(percent=percent, minimum_soak_s=20, minimum_requests=5) for percent in (5.0, 25.0, 50.0)
            ),
            "guardrails": (
                GuardrailPlan(name="errors", margin=2.0, ceiling=0.05),
                GuardrailPlan(name="invalid_output", margin=2.0, ceiling=0.05),
            ),
            "deadline_s": 3_600.0,
            "settle_s": 2.0,
            **changes,
        }
        return ReleasePlan(**fields).freeze(self.store)

    def controller(self, plan: ReleasePlan, **changes: Any) -> Controller:
        """A new controller, as a restarted triggerer would make one."""
        return Controller(plan, self.parts(), **changes)

    def settle(self, controller: Controller, *, ticks: int = 2_000):
        """Tick, as a triggerer does every two seconds, until the release has ended."""
        for _ in range(ticks):
            progress = controller.tick()
            if progress.phase.ended:
                return progress
            self.serving.sleep(POLL_S)
        raise AssertionError(f"still {progress.phase} after {ticks} ticks")

    def description(self) -> dict[str, Any]:
        """The parts in plain JSON, as an operator passes them to a trigger."""
        return {"factory": "tests.fakes.releases:open_parts", "settings": {"folder": str(self.folder)}}


def open_parts(settings: Mapping[str, Any], _model: str, _serve: Mapping[str, Any]) -> Parts:
    """What :func:`genai_operators.release.subject.open_parts` calls in tests."""
    return Bench(Path(settings["folder"])).parts()


class Surroundings:
    """Implements :class:`genai_operators.release.reconcile.Surroundings` over a bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def parts(self, _model: str, _serve: Mapping[str, Any]) -> Parts:
        return self._bench.parts()

    def deployment(self, entry: LedgerEntry, *, runtime: str) -> Deployment:
        return deployment(entry.version, runtime)
