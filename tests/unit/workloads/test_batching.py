from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genai_operators.exceptions import BadWorkload
from genai_operators.workloads.batching import split_batch

SIZES = st.integers(1, 512)


@given(per_device=SIZES, devices=st.integers(1, 16), micro_batch=st.none() | SIZES)
def test_a_step_takes_the_whole_batch_and_never_more_at_a_time_than_fit(
    per_device: int, devices: int, micro_batch: int | None
) -> None:
    split = split_batch(per_device * devices, devices=devices, micro_batch=micro_batch)
    assert split.micro * split.accumulation * split.devices == per_device * devices
    assert split.micro <= (micro_batch or per_device)


def test_without_a_limit_it_is_taken_at_once() -> None:
    assert split_batch(16, devices=1, micro_batch=None).accumulation == 1


def test_the_largest_part_is_taken_that_fits() -> None:
    assert split_batch(24, devices=2, micro_batch=5).micro == 4


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(BadWorkload, match="multiple of 4"):
        split_batch(6, devices=4, micro_batch=None)
