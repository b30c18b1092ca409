"""What several processes of a node come to, as one exit code and one reason."""

from __future__ import annotations

import json
import os

import pytest

from genai_operators.compute import attempts
from genai_operators.compute.contract import Attempt
from genai_operators.store import Store
from genai_operators.workloads.distributed import conclude, keep_error, torchrun_command
from genai_operators.workloads.main import report_failure
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
        rank.error_file(node).parent.mkdir(exist_ok=True)
        rank.error_file(node).write_text(json.dumps(told))


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

    @pytest.mark.parametrize("processes", [1, 2])  # alone on its node it lost one of another node
    def test_that_one_lost_another_is_no_reason(self, tmp_path, processes):
        """An error with a name would be final: see ``Ending.disposition``."""
        end(tmp_path, 0, 1, message=LOST)
        assert conclude(tmp_path, torchrun_code=1, processes=processes) == 137
        assert not (tmp_path / "error.json").exists()


class TestFurtherNode:
    def test_the_reason_of_its_failure_is_stored(self, tmp_path):
        store = Store.open(tmp_path / "store")
        environment = {
            "GENAI_WORKLOAD_URI": store.uri_of("workloads/fine_tune/abc"),
            "GENAI_ATTEMPT": "3",
            "PET_NODE_RANK": "1",
        }
        keep_error(tmp_path, environment)
        attempt = Attempt(store=store, directory="workloads/fine_tune/abc", number=3)
        assert attempts.error_of_another_node(attempt) is None
        error = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.")
        code = report_failure(error, scratch=tmp_path, file=Rank(world=2).error_file(tmp_path))
        Rank(world=2).note_exit(tmp_path, code)
        assert conclude(tmp_path, torchrun_code=1, processes=1) == code
        keep_error(tmp_path, environment)
        ending = attempts.error_of_another_node(attempt)
        assert ending is not None
        assert (ending.error, ending.memory_that_ran_out) == ("OutOfMemory", "gpu")
        store.create_json(attempt.path("starts/1.json"), {})
        assert attempts.error_of_another_node(attempt) is None, "the platform has begun it anew since"
        keep_error(tmp_path, environment)
        assert attempts.error_of_another_node(attempt) == ending


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
