"""What must have happened for the demo to count, each as one claim that outside systems confirm or deny."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from embedded.demo import evidence, lineage, stages
from embedded.demo.traffic import MODEL
from embedded.layout import Layout
from genai_operators.exceptions import ManifestMismatch, SignatureInvalid, UnsafeWeights
from genai_operators.release.ledger import Ledger

STEPS = [5.0, 25.0, 50.0]
SOURCE = f"include/data/{MODEL}/first.jsonl"
#: What users sent at the very end may not be in the store yet.
LEAST_SHARE_OF_FEEDBACK = 0.9
ON_OLD, ON_NEW = (f"exact match against the champion, {rows} rows" for rows in ("old", "new"))


def check(run: stages.Run, record: dict[str, Any]) -> dict[str, bool]:
    """Every claim, and whether it holds. :param record: as :func:`embedded.demo.record.collect` left it."""
    if record["not_measured"]:
        return {f"everything was measured: {', '.join(record['not_measured'])}": False}
    registry = evidence.registry(run.layout, MODEL)
    record["mlflow"] = {"champion": registry["champion"], "versions": list(registry["versions"])}
    return {
        **_versions(record, registry),
        **_evaluated(record, registry),
        **_packages(run, record),
        **_split(record),
        **_bad_release(run, record),
        **_airflow(run),
        **feedback(record),
    }


def _promoted(record: dict[str, Any]) -> tuple[int, int]:
    return record["champions"]["first"], record["champions"]["second"]


def _versions(record: dict[str, Any], registry: dict[str, Any]) -> dict[str, bool]:
    first, second = _promoted(record)
    promoted = [entry["version"] for entry in record["ledger"] if entry["action"] == "promote"]
    return {
        f"the ledger holds two promotions, {first} and {second}": promoted == [first, second],
        f"MLflow's alias champion points at {second}": registry["champion"] == second,
        "every promoted version is complete in MLflow": all(
            registry["versions"].get(v, {}).get("genai.complete") == "true" for v in promoted
        ),
    }


def _evaluated(record: dict[str, Any], registry: dict[str, Any]) -> dict[str, bool]:
    first, second = _promoted(record)
    checks = evidence.evaluation(registry["versions"][second]["genai.evidence.evaluation"])
    return better_and_not_inferior(checks, names=(f"version {second}", f"version {first}"))


def better_and_not_inferior(checks: dict[str, dict[str, Any]], *, names: tuple[str, str]) -> dict[str, bool]:
    """By the intervals of the paired differences: above 0 on new rows, above minus the margin on old ones."""

    def above(name: str, *, floor: float) -> bool:
        found = checks.get(name)
        return found is not None and found["outcome"] == "pass" and found["interval"][0] > floor

    margin = checks.get(ON_OLD, {}).get("threshold") or 0.0
    candidate, champion = names
    return {
        f"{candidate} is better than {champion} on new rows": above(ON_NEW, floor=0.0),
        f"{candidate} is not inferior to {champion} on old rows": above(ON_OLD, floor=margin),
    }


def _packages(run: stages.Run, record: dict[str, Any]) -> dict[str, bool]:
    """What MLflow serves of each promoted version, downloaded anew, and where it came from."""
    digests = {entry.version: entry.digest for entry in Ledger(run.store, MODEL).verify()}
    edges = lineage.read(run.layout.lineage)
    return {
        claim: holds
        for version in _promoted(record)
        for claim, holds in (
            (f"the signature of version {version} verifies", verifies(run.layout, version, digests[version])),
            (
                f"lineage leads from the data over version {version} in MLflow to the endpoint",
                lineage.leads_to_endpoint(edges, source=SOURCE, model=MODEL, digest=digests[version]),
            ),
        )
    }


def verifies(layout: Layout, version: int, digest: str) -> bool:
    """Whether MLflow's files of a version are those that the ledger names, signed by a trusted key."""
    from genai_operators.hooks.registry import ModelRegistry

    with tempfile.TemporaryDirectory() as folder:
        try:
            ModelRegistry(layout.mlflow_url).fetch(
                MODEL, version, cache=Path(folder), trusted_keys=layout.keys / "trusted", digest=digest
            )
        except (ManifestMismatch, SignatureInvalid, UnsafeWeights):
            return False
    return True


def _split(record: dict[str, Any]) -> dict[str, bool]:
    first, second = _promoted(record)
    routed = record["routed"]
    return {
        f"version {first} was released without a canary": f"{MODEL}-v{first}-standard" not in routed,
        f"the gateway drew version {second} for 5, 25 and 50 % of the requests": routed.get(
            f"{MODEL}-v{second}-standard"
        )
        == STEPS,
    }


def _bad_release(run: stages.Run, record: dict[str, Any]) -> dict[str, bool]:
    first, second = _promoted(record)
    known = evidence.gateway_requests(run.layout)
    ending = evidence.releases(run.store, MODEL)[run.runs[-1][1]]["verdict"]
    counted = sum(count for name, count in record["gateway_counted"].items() if name.endswith("-unreliable"))
    return {
        f"the gateway knows version {second} and not the first": any(f"-v{second}-" in c for c in known)
        and not any(f"-v{first}-" in c for c in known),
        "the bad release met requests and has gone": record["exposed_requests"] > 0
        and not any(c.endswith("-unreliable") for c in known),
        # Its last requests come after the last look at the gateway's own counter, which goes with the release.
        "Envoy counted requests to it, no more than the access log": 0 < counted <= record["exposed_requests"],
        "the canary rolled it back, for harm or at its budget": ending
        in ("rolled_back (harm)", "rolled_back (blast_radius)"),
    }


def _airflow(run: stages.Run) -> dict[str, bool]:
    events = [event for event in run.api.asset_events() if event["source_dag_id"] == stages.DRIFT]
    return {
        "one drift alarm, no more": len(events) == 1,
        "Airflow has no import errors": not run.api.import_errors(),
    }


def feedback(record: dict[str, Any]) -> dict[str, bool]:
    """What users judged arrived, and each judgement met its request."""
    sent = record["users"].get("feedback", 0)
    found = record["feedback"] or {"judgements": 0, "joined": 0}
    arrived = 0 < LEAST_SHARE_OF_FEEDBACK * sent <= found["judgements"]
    return {"the users' feedback was joined to its requests": arrived and found["joined"] == found["judgements"]}
