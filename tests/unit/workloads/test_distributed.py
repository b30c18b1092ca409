"""What several processes of a node come to, as one exit code and one reason."""

from __future__ import annotations

import json
import os

import pytest

from genai_operators.workloads.distributed import conclude, torchrun_command
from genai_operators.workloads.ranks import Rank

LOST = "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:44224."


def end(node, local, code, *, message="", at=0.0):
    """A local process has ended."""
    rank = Rank(number=local, local=local, world=4)
    rank.scratch(node).mkdir(parents=True, exist_ok=True)
    rank.note_exit(node, code)
    os.utime(node / "exits" / str(local), (at, at))
    if message:
        told = {"class": message.split(":")[0], "message": message}
        (rank.scratch(node) / "error.json").write_text(json.dumps(told))


class TestConclude:
    @pytest.mark.parametrize(
        ("codes", "torchrun", "expected"),
        [
            ({0: 0, 1: 0}, 0, 0),
            ({0: 75, 1: 75}, 1, 75),
            ({0: 75}, 1, 137),
            ({}, 1, 137),
            ({0: 0, 1: 76}, 1, 76),
            ({0: 75, 1: 65}, 1, 65),
        ],
    )
    def test_the_code(self, tmp_path, codes, torchrun, expected):
        for local, code in codes.items():
            end(tmp_path, local, code)
        assert conclude(tmp_path, torchrun_code=torchrun, processes=2) == expected

    def test_the_first_that_failed_by_itself_is_the_reason(self, tmp_path):
        end(tmp_path, 0, 1, message=LOST, at=10)
        end(tmp_path, 1, 1, message="OutOfMemory: CUDA out of memory", at=20)
        assert conclude(tmp_path, torchrun_code=1, processes=2) == 1
        assert json.loads((tmp_path / "error.json").read_text())["class"] == "OutOfMemory"

    def test_one_that_left_no_word_was_killed_and_the_others_only_lost_it(self, tmp_path):
        end(tmp_path, 0, 1, message=LOST)
        assert conclude(tmp_path, torchrun_code=1, processes=2) == 137


class TestCommand:
    def test_one_node_meets_by_itself_and_several_at_the_first(self):
        assert "--standalone" in torchrun_command({"PET_NPROC_PER_NODE": "8"})
        assert "--standalone" not in torchrun_command({"PET_NNODES": "2"})


class TestRank:
    def test_without_torchrun_there_is_one_process(self, tmp_path):
        rank = Rank.of({})
        assert rank.speaks
        assert rank.scratch(tmp_path) == tmp_path
        rank.note_exit(tmp_path, 0)
        assert not (tmp_path / "exits").exists()

    def test_each_local_process_has_a_folder_below_its_node_s(self, tmp_path):
        rank = Rank.of({"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16"})
        assert not rank.speaks
        assert rank.node(rank.scratch(tmp_path)) == tmp_path
