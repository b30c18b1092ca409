from __future__ import annotations

from genai_operators.compute.contract import Phase
from genai_operators.compute.pace import LONGEST_BEFORE_FIRST_LINE_S, LONGEST_S, SHORTEST_S, Pace
from genai_operators.compute.standing import Standing


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_looks_often_until_the_first_line_and_then_ever_less() -> None:
    clock = Clock()
    pace = Pace(monotonic=clock)

    def after(seconds: float, phase: Phase, *, said: bool = False) -> float:
        clock.now += seconds
        return pace.next_s(Standing(phase, 1), said=said)

    assert after(0, Phase.QUEUED) == SHORTEST_S
    assert after(50, Phase.QUEUED) == 5.0
    assert after(5000, Phase.QUEUED) == LONGEST_S
    assert after(0, Phase.STARTING) == SHORTEST_S
    assert after(600, Phase.STARTING) == LONGEST_BEFORE_FIRST_LINE_S
    assert after(0, Phase.RUNNING) == SHORTEST_S
    assert after(600, Phase.RUNNING) == LONGEST_BEFORE_FIRST_LINE_S
    assert after(0, Phase.RUNNING, said=True) == LONGEST_S


def test_the_next_attempt_is_awaited_anew() -> None:
    clock = Clock()
    pace = Pace(monotonic=clock)
    pace.next_s(Standing(Phase.RUNNING, 1), said=True)
    clock.now += 1000
    assert pace.next_s(Standing(Phase.RUNNING, 1), said=False) == LONGEST_S
    assert pace.next_s(Standing(Phase.RUNNING, 2), said=False) == SHORTEST_S
