from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genai_operators.compute.escalation import Ask, Trouble, escalate, first, is_on
from genai_operators.compute.resources import GIB, Resources

L4 = Resources(gpu="l4", gpu_count=1, memory_bytes=16 * GIB)
H100 = Resources(gpu="h100", gpu_count=1, memory_bytes=32 * GIB, micro_batch=8)
LADDER = (L4, H100)

RUNGS = st.builds(
    Resources,
    gpu=st.sampled_from([None, "l4", "h100"]),
    gpu_count=st.integers(0, 8),
    memory_bytes=st.integers(1, 64).map(lambda gib: gib * GIB),
    micro_batch=st.none() | st.integers(1, 64),
)
LADDERS = st.lists(RUNGS, max_size=4)
TROUBLES = st.lists(st.sampled_from(Trouble), min_size=60, max_size=60)
BATCHES = st.none() | st.integers(1, 256)


def asks(ladder: Sequence[Resources], troubles: Sequence[Trouble], batch: int | None) -> list[Ask]:
    """Everything that is asked for, one after the other."""
    found = [first(ladder)]
    for trouble in troubles:
        following = escalate(found[-1], trouble, ladder=ladder, batch=batch)
        if following is None:
            break
        found.append(following)
    return found


class TestAnyLadderAndAnyTrouble:
    @given(ladder=LADDERS, troubles=TROUBLES, batch=BATCHES)
    def test_it_ends_and_never_asks_for_the_same_twice(
        self, ladder: list[Resources], troubles: list[Trouble], batch: int | None
    ) -> None:
        found = asks(ladder, troubles, batch)
        # A rung is left upwards, its batch halved at most eight times (of 256 rows), its memory raised once.
        assert len(found) <= max(1, len(ladder)) * (1 + 8 + 1)
        assert len(set(found)) == len(found)

    @given(ladder=LADDERS, troubles=TROUBLES, batch=BATCHES)
    def test_it_only_climbs_and_never_asks_for_less_memory_on_a_rung(
        self, ladder: list[Resources], troubles: list[Trouble], batch: int | None
    ) -> None:
        found = asks(ladder, troubles, batch)
        for before, after in pairwise(found):
            assert after.rung in (before.rung, before.rung + 1)
            if after.rung == before.rung:
                assert after.resources.memory_bytes >= before.resources.memory_bytes
                assert (after.resources.gpu, after.resources.gpu_count) == (
                    before.resources.gpu,
                    before.resources.gpu_count,
                )

    @given(ladder=LADDERS, troubles=TROUBLES, batch=st.integers(1, 256))
    def test_a_micro_batch_that_it_chose_divides_the_batch(
        self, ladder: list[Resources], troubles: list[Trouble], batch: int
    ) -> None:
        for before, after in pairwise(asks(ladder, troubles, batch)):
            micro = after.resources.micro_batch
            if after.rung == before.rung and micro != before.resources.micro_batch:
                assert micro is not None
                assert batch % micro == 0
                assert micro <= (before.resources.micro_batch or batch) // 2

    @given(ladder=LADDERS, troubles=TROUBLES, batch=BATCHES)
    def test_what_it_asks_for_is_known_to_come_from_the_ladder(
        self, ladder: list[Resources], troubles: list[Trouble], batch: int | None
    ) -> None:
        assert all(is_on(ask, ladder) for ask in asks(ladder, troubles, batch))

    @given(ladder=LADDERS, ask=st.builds(Ask, RUNGS, st.integers(0, 5), st.booleans()))
    def test_a_claim_keeps_it(self, ladder: list[Resources], ask: Ask) -> None:
        claim = {"resources": ask.resources.to_json(), "rung": ask.rung, "grown": ask.grown}
        assert Ask.of_claim(claim) == ask


class TestGpuMemory:
    def test_halves_what_the_workload_reported_then_climbs(self) -> None:
        found = asks(LADDER, [Trouble.GPU_MEMORY] * 20, 6)
        assert [(ask.rung, ask.resources.micro_batch) for ask in found] == [
            (0, None), (0, 3), (0, 1),
            (1, 8), (1, 3), (1, 1),
        ]  # fmt: skip

    def test_climbs_at_once_where_nobody_knows_the_batch(self) -> None:
        assert escalate(first(LADDER), Trouble.GPU_MEMORY, ladder=LADDER, batch=None) == Ask(H100, rung=1)

    def test_helps_without_a_ladder_too(self) -> None:
        ask = escalate(first(()), Trouble.GPU_MEMORY, ladder=(), batch=4)
        assert ask is not None
        assert ask.resources.micro_batch == 2


class TestHostMemory:
    def test_is_doubled_once_a_rung(self) -> None:
        ask = escalate(first(LADDER), Trouble.HOST_MEMORY, ladder=LADDER, batch=None)
        assert ask is not None
        assert (ask.resources.memory_bytes, ask.grown) == (32 * GIB, True)
        assert escalate(ask, Trouble.HOST_MEMORY, ladder=LADDER, batch=None) is None

    def test_stays_raised_on_the_next_rung(self) -> None:
        roomy = Resources(gpu="l4", gpu_count=1, memory_bytes=24 * GIB)
        ladder = (roomy, H100)
        grown = escalate(first(ladder), Trouble.HOST_MEMORY, ladder=ladder, batch=None)
        assert grown is not None
        climbed = escalate(grown, Trouble.QUEUE, ladder=ladder, batch=None)
        assert climbed is not None
        assert climbed.resources.memory_bytes == 48 * GIB

    def test_without_a_ladder_nobody_set_a_limit(self) -> None:
        assert escalate(first(()), Trouble.HOST_MEMORY, ladder=(), batch=None) is None


class TestQueue:
    def test_climbs_and_then_there_is_nothing_left(self) -> None:
        assert [ask.rung for ask in asks(LADDER, [Trouble.QUEUE] * 5, None)] == [0, 1]


@pytest.mark.parametrize(
    "changed", [Ask(L4, rung=1), Ask(H100, rung=5), Ask(Resources(gpu="l4", gpu_count=2, memory_bytes=16 * GIB))]
)
def test_what_an_older_model_file_asked_for_is_not_on_the_ladder(changed: Ask) -> None:
    assert not is_on(changed, LADDER)
