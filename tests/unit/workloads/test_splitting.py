"""The split: decided by the prompt alone."""

from __future__ import annotations

from genai_operators.workloads.splitting import split, split_exactly
from tests.fakes.workload_process import record


def test_the_share_is_about_as_asked_and_nothing_is_lost() -> None:
    records = [record(f"question {n}", "a") for n in range(2000)]
    kept, held_out = split(records, share=0.1, salt="evaluation")
    assert len(kept) + len(held_out) == 2000
    assert 150 < len(held_out) < 250


def test_a_prompt_is_on_the_same_side_whatever_stands_around_it() -> None:
    records = [record(f"question {n}", "a") for n in range(300)]
    _, before = split(records, share=0.2, salt="s")
    _, after = split(list(reversed(records[100:])), share=0.2, salt="s")
    assert {r.id for r in before} & {r.id for r in records[100:]} == {r.id for r in after}


def test_copies_of_a_prompt_never_stand_on_both_sides() -> None:
    records = [record(f"Question {n // 3} " + "  " * (n % 3), str(n), identity=str(n)) for n in range(300)]
    kept, held_out = split(records, share=0.3, salt="s")
    assert not {r.prompt_digest for r in kept} & {r.prompt_digest for r in held_out}


def test_few_rows_are_split_exactly() -> None:
    records = [record(f"question {n}", "a") for n in range(120)]
    kept, held_out = split_exactly(records, share=0.25, salt="s")
    assert (len(kept), len(held_out)) == (90, 30)
    assert {*kept, *held_out} == set(records)
    assert split_exactly(list(reversed(records)), share=0.25, salt="s")[1] == list(reversed(held_out))
