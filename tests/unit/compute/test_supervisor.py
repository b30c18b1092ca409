"""The supervisor as a process of its own, with small commands in place of a workload."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute import attempts, supervisor
from genai_operators.compute.contract import Attempt
from genai_operators.compute.gpu_use import read_gpus
from genai_operators.compute.process import ProcessIdentity
from genai_operators.store import Store
from tests.fakes.workload_run import wait_for

DIRECTORY = "workloads/command/abc"


class Supervised:
    """Starts supervisors of attempt 1 with a Python snippet as the workload."""

    def __init__(self, store: Store, scratch_root: Path, project_root: Path) -> None:
        self.attempt = Attempt(store=store, directory=DIRECTORY, number=1)
        store.create_json(self.attempt.path("claim.json"), {})
        self.env = {
            **os.environ,
            "PYTHONPATH": str(project_root / "plugins"),
            "GENAI_SCRATCH_ROOT": str(scratch_root),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "secret",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, code: str, *, grace_s: float = 30.0, python: str = sys.executable, incarnation: str | None = None
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "genai_operators.compute.supervisor", "--store", self.attempt.store.uri]
        command += ["--directory", DIRECTORY, "--attempt", "1", "--grace", str(grace_s)]
        command += ["--incarnation", incarnation] if incarnation else []
        self.processes.append(
            subprocess.Popen([*command, "--", python, "-c", textwrap.dedent(code)], env=self.env, cwd="/")
        )
        return self.processes[-1]

    def run(self, code: str, **options: Any) -> int:
        return self.start(code, **options).wait(timeout=60)

    def record(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.attempt.store.find_json(self.attempt.path(name))
        return found

    def log(self) -> list[str]:
        infos = self.attempt.store.list(self.attempt.path("log"))
        return [line for info in infos for line in self.attempt.store.get(info.path).decode().splitlines()]

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: any(text in line for line in self.log()), what=text)


@pytest.fixture
def supervised(store: Store, tmp_path: Path, project_root: Path) -> Iterator[Supervised]:
    supervised = Supervised(store, tmp_path / "scratch", project_root)
    yield supervised
    for process in supervised.processes:
        process.kill()
        process.wait()


class TestBeginning:
    def test_of_many_launches_one_begins(self, supervised: Supervised, tmp_path: Path) -> None:
        marks = tmp_path / "marks"
        marks.mkdir()
        code = f"import os; open({str(marks)!r} + '/' + str(os.getpid()), 'w')"
        processes = [supervised.start(code) for _ in range(5)]
        assert [process.wait(timeout=60) for process in processes] == [0] * 5
        assert len(list(marks.iterdir())) == 1

    def test_the_workload_gets_its_place_and_no_secret_of_airflow(self, supervised: Supervised) -> None:
        code = """
            import os
            for name in ("GENAI_WORKLOAD_URI", "GENAI_ATTEMPT", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
                print(name, os.environ.get(name))
            print("empty", os.listdir(os.environ["GENAI_SCRATCH"]) == [] and os.getcwd() == os.environ["GENAI_SCRATCH"])
            import genai_operators.store
        """
        assert supervised.run(code) == 0
        uri = supervised.attempt.store.uri_of(DIRECTORY)
        assert [line.split(" ", 1)[1] for line in supervised.log()] == [
            f"GENAI_WORKLOAD_URI {uri}",
            "GENAI_ATTEMPT 1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN None",
            "empty True",
        ]

    def test_the_claim_says_how_many_rows_fit_and_what_others_call_the_store(self, supervised: Supervised) -> None:
        claim = {"store": "s3://bucket/store", "resources": {"micro_batch": 2}}
        supervised.attempt.store.put_json(supervised.attempt.path("claim.json"), claim)
        code = "import os; print(os.environ['GENAI_STORE_URI'], os.environ['GENAI_MICRO_BATCH'])"
        assert supervised.run(code) == 0
        assert supervised.log() == ["000001 s3://bucket/store 2"]

    def test_a_command_that_does_not_exist_is_told(self, supervised: Supervised) -> None:
        supervised.run("", python="/no/such/python")
        record = supervised.record("exit.json")
        assert record is not None
        assert "/no/such/python" in record["message"]


class TestRecords:
    def test_lines_are_numbered_and_none_is_lost(self, supervised: Supervised) -> None:
        code = """
            import sys
            for number in range(25_000):
                print("line", number)
            print("::progress " + '{"step": 1, "total": 2}')
            print("::progress not json")
            print("x" * 100_000, file=sys.stderr)
            sys.stdout.write("no end of line")
        """
        assert supervised.run(code) == 0
        lines = supervised.log()
        assert [int(line.split(" ", 1)[0]) for line in lines] == list(range(1, len(lines) + 1))
        assert [line.split(" ", 1)[1] for line in lines[:25_000]] == [f"line {number}" for number in range(25_000)]
        assert sum(line.count("x" * 1000) for line in lines) >= 96
        assert lines[-1].endswith("no end of line")
        progress = supervised.attempt.store.get(supervised.attempt.path("progress/000000.jsonl")).decode()
        assert progress == '{"step": 1, "total": 2}\n'

    def test_a_workload_that_talks_faster_than_it_is_heard_loses_nothing(
        self, supervised: Supervised, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listening = supervisor.Supervisor(supervised.attempt, command=[])
        said = [f"line {number}" for number in range(100)]
        for line in said:
            listening._output.put(line)
        monkeypatch.setattr(supervisor, "QUEUED_LINES", 10)  # of which it takes about so many between two heartbeats
        while not listening._output.empty():
            listening._take(timeout=0.1)
        listening._flush(everything=True)
        assert [line.split(" ", 1)[1] for line in supervised.log()] == said

    def test_success_is_an_exit_record_and_a_last_heartbeat(self, supervised: Supervised) -> None:
        supervised.run("x = bytearray(50_000_000)")
        record, heartbeat = supervised.record("exit.json"), supervised.record("heartbeat.json")
        assert record is not None
        assert heartbeat is not None
        assert record["code"] == 0
        assert record["peak_memory_bytes"] > 50_000_000
        assert heartbeat["ended"]

    def test_a_failure_says_why(self, supervised: Supervised) -> None:
        code = """
            import json, os, sys
            with open(os.environ["GENAI_SCRATCH"] + "/error.json", "w") as file:
                json.dump({"class": "DataError", "message": "line 7"}, file)
            sys.exit(65)
        """
        assert supervised.run(code) == 65
        record = supervised.record("exit.json")
        assert record is not None
        assert (record["code"], record["error"], record["message"]) == (65, "DataError", "line 7")

    def test_a_failure_without_a_reason_shows_its_last_lines(self, supervised: Supervised) -> None:
        supervised.run("raise RuntimeError('odd')")
        record = supervised.record("exit.json")
        assert record is not None
        assert "RuntimeError: odd" in record["message"]

    #: A process of several nodes has lost one of another node, as gloo tells it.
    LOST_ANOTHER = """
        import os, pathlib, sys
        from genai_operators.workloads.distributed import conclude
        from genai_operators.workloads.main import report_failure
        from genai_operators.workloads.ranks import Rank
        node = pathlib.Path(os.environ["GENAI_SCRATCH"])
        error = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:44224")
        rank = Rank(world=2)
        rank.note_exit(node, report_failure(error, scratch=node, file=rank.error_file(node)))
        sys.exit(conclude(node, torchrun_code=1, processes=1))
    """
    #: Whoever would have told who is to blame is killed first.
    KILLED_BEFORE_THE_VERDICT = LOST_ANOTHER.replace("sys.exit(", "os.kill(os.getpid(), 9 or ")

    @pytest.mark.parametrize(
        "code", ["exit(75)", "import os; os.kill(os.getpid(), 9)", LOST_ANOTHER, KILLED_BEFORE_THE_VERDICT]
    )
    def test_what_can_be_resumed_has_no_exit_record(self, supervised: Supervised, code: str) -> None:
        supervised.run(code)
        heartbeat = supervised.record("heartbeat.json")
        assert heartbeat is not None
        assert heartbeat["ended"]
        assert supervised.record("exit.json") is None

    def test_scratch_is_removed(self, supervised: Supervised, tmp_path: Path) -> None:
        supervised.run("open('big', 'w').write('x')")
        assert list((tmp_path / "scratch").iterdir()) == []

    def test_nothing_that_the_workload_left_behind_lives_on(self, supervised: Supervised, tmp_path: Path) -> None:
        pid_file = tmp_path / "pid"
        code = f"""
            import subprocess, sys
            process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            open({str(pid_file)!r}, "w").write(str(process.pid))
        """
        assert supervised.run(code) == 0
        pid = int(pid_file.read_text())
        wait_for(lambda: ProcessIdentity.of(pid).started == "", what="the orphan to be gone")


LISTENS = """
    import signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    print("ready")
    time.sleep(600)
"""
DEAF = LISTENS.replace("lambda *_: sys.exit(75)", "signal.SIG_IGN")


class TestStopping:
    def test_cancel_reaches_the_workload_as_sigterm(self, supervised: Supervised) -> None:
        process = supervised.start(LISTENS)
        supervised.wait_for_log("ready")
        supervised.attempt.store.create_json(supervised.attempt.path("cancel.json"), {})
        assert process.wait(timeout=60) == 75
        assert any("cancel.json" in line for line in supervised.log())

    def test_so_does_a_sigterm_from_the_platform(self, supervised: Supervised) -> None:
        process = supervised.start(LISTENS)
        supervised.wait_for_log("ready")
        process.terminate()
        assert process.wait(timeout=60) == 75

    def test_who_does_not_listen_is_killed_after_the_grace(self, supervised: Supervised) -> None:
        process = supervised.start(DEAF, grace_s=0.5)
        supervised.wait_for_log("ready")
        process.terminate()
        process.wait(timeout=60)
        heartbeat = supervised.record("heartbeat.json")
        assert heartbeat is not None
        assert heartbeat["code"] == -signal.SIGKILL

    def test_one_whose_records_were_removed_ends(self, supervised: Supervised) -> None:
        process = supervised.start(LISTENS)
        supervised.wait_for_log("ready")
        supervised.attempt.store.delete(supervised.attempt.path("claim.json"))
        assert process.wait(timeout=60) == -signal.SIGKILL % 256

    def test_one_whose_successor_was_claimed_while_it_slept_ends_at_once(self, supervised: Supervised) -> None:
        process = supervised.start(LISTENS)
        supervised.wait_for_log("ready")
        process.send_signal(signal.SIGSTOP)
        successor = Attempt(store=supervised.attempt.store, directory=DIRECTORY, number=2)
        successor.store.create_json(successor.path("claim.json"), {})
        # It looks for a successor only after a gap between heartbeats: 6 s, see SUSPECT_S.
        heartbeat = supervised.record("heartbeat.json")
        assert heartbeat is not None
        wait_for(lambda: time.time() - heartbeat["at"] > 6.5)
        process.send_signal(signal.SIGCONT)
        process.wait(timeout=60)
        heartbeat = supervised.record("heartbeat.json")
        assert heartbeat is not None
        assert heartbeat["code"] == -signal.SIGKILL

    def test_a_grace_of_less_than_two_checkpoints_is_warned_of_once(self, supervised: Supervised) -> None:
        code = """
            for seconds in (4, 6.5, 2, 6):
                print("::progress " + '{"checkpoint_seconds": %s}' % seconds)
        """
        assert supervised.run(code + "    exit(75)", grace_s=10.0, incarnation="pod-1") == 75
        (line,) = supervised.log()
        assert "Set grace_s to at least 13" in line
        assert supervised.run("exit(75)", incarnation="pod-2") == 75
        heartbeat = supervised.record("heartbeat.json")
        assert heartbeat is not None
        assert heartbeat["progress"]["checkpoint_seconds"] == 6.5


class TestIncarnations:
    """The platform replaces a process that it took away; the attempt goes on in the next one."""

    SPEAKS = "import os; print('line of', os.getpid()); print('::progress ' + '{\"step\": 1}')"

    def start_paths(self, supervised: Supervised) -> list[str]:
        return list(supervised.attempt.store.list_names(supervised.attempt.path("starts")))

    def test_the_next_one_begins_at_once_and_its_lines_follow(self, supervised: Supervised) -> None:
        assert supervised.run(self.SPEAKS + "; exit(75)", incarnation="pod-1") == 75
        beat = (supervised.record("heartbeat.json") or {})["beat"]
        assert supervised.run("print('more'); exit(75)", incarnation="pod-2") == 75
        assert supervised.run(self.SPEAKS, incarnation="pod-3") == 0

        assert self.start_paths(supervised) == ["1.json", "2.json"]
        record, heartbeat = supervised.record("starts/2.json"), supervised.record("heartbeat.json")
        assert record is not None
        assert heartbeat is not None
        assert record["incarnation"] == "pod-3"
        assert [int(line.split(" ", 1)[0]) for line in supervised.log()] == [1, 2, 3]
        assert len(supervised.attempt.store.list(supervised.attempt.path("progress"))) == 2
        assert heartbeat["beat"] > beat
        assert heartbeat["start"] == 2

    def test_the_same_one_never_begins_twice(self, supervised: Supervised) -> None:
        supervised.run("exit(75)", incarnation="pod-1")
        supervised.run("exit(75)", incarnation="pod-2")
        for name in ("pod-1", "pod-2"):
            assert supervised.run(self.SPEAKS, incarnation=name) == 75
        assert self.start_paths(supervised) == ["1.json"]
        assert supervised.log() == []

    def test_without_an_incarnation_nothing_begins_again(self, supervised: Supervised) -> None:
        supervised.run("exit(75)")
        assert supervised.run(self.SPEAKS) == 0
        assert supervised.log() == []

    @pytest.mark.parametrize(
        ("record", "code"), [("exit.json", 0), ("cancel.json", 75), ("../../result.json", 0), ("../2/claim.json", 75)]
    )
    def test_what_has_ended_or_was_asked_to_stop_does_not_begin(
        self, supervised: Supervised, record: str, code: int
    ) -> None:
        supervised.run("exit(75)", incarnation="pod-1")
        folder = DIRECTORY if record.startswith("../../") else f"{DIRECTORY}/attempts"
        path = f"{folder}/{record.lstrip('./')}" if record.startswith("..") else supervised.attempt.path(record)
        supervised.attempt.store.create_json(path, {})
        assert supervised.run(self.SPEAKS, incarnation="pod-2") == code
        assert supervised.log() == []

    def test_one_that_was_given_up_before_it_began_never_does(self, supervised: Supervised) -> None:
        attempts.abandon(supervised.attempt, reason="too long in the queue")
        assert supervised.run(self.SPEAKS, incarnation="pod-1") == 75
        assert supervised.log() == []

    def test_a_zombie_yields_to_its_replacement_and_writes_no_end(self, supervised: Supervised) -> None:
        zombie = supervised.start(LISTENS.replace("ready", "zombie"), incarnation="pod-1")
        supervised.wait_for_log("zombie")
        replacement = supervised.start(LISTENS, incarnation="pod-2")
        supervised.wait_for_log("ready")
        assert zombie.wait(timeout=60) == -signal.SIGKILL % 256
        heartbeat = supervised.record("heartbeat.json")
        assert heartbeat is not None
        assert not heartbeat["ended"]
        replacement.terminate()
        assert replacement.wait(timeout=60) == 75

    def test_each_start_says_whether_the_one_before_brought_anything(self, supervised: Supervised) -> None:
        store, attempt = supervised.attempt.store, supervised.attempt
        store.put_json(attempt.path("claim.json"), {"step": 10, "stalls": 1})
        store.put_json(attempt.path("checkpoints/10/MANIFEST.json"), {})
        for number, step in ((1, None), (2, None), (3, 20), (4, None)):
            if step:
                store.put_json(attempt.path(f"checkpoints/{step}/MANIFEST.json"), {})
            supervised.run("exit(75)", incarnation=f"pod-{number}")
        told = [store.get_json(attempt.path(f"starts/{k}.json")) for k in (1, 2, 3)]
        assert [(record["step"], record["stalls"]) for record in told] == [(10, 2), (20, 0), (20, 1)]


class TestGpus:
    def test_their_use_stands_beside_the_progress(self, supervised: Supervised, tmp_path: Path) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\nprintf '1024, 50\\n2048, 100\\n'\n")
        program.chmod(0o755)
        supervised.env["PATH"] = f"{program.parent}:{supervised.env['PATH']}"
        code = """
            import time
            while True:
                print('::progress {"step": 1}', flush=True)
                time.sleep(0.1)
        """
        supervised.start(code)
        heartbeat = wait_for(lambda: (found := supervised.record("heartbeat.json")) and found["gpu"] and found)
        assert heartbeat["gpu"] == {"gpu_memory_bytes": 2048 * 2**20, "gpu_use": 0.75}
        assert heartbeat["peak_gpu_memory_bytes"] == 2048 * 2**20
        store, prefix = supervised.attempt.store, supervised.attempt.path("progress")
        wait_for(lambda: any(b'"gpu_use": 0.75' in store.get(info.path) for info in store.list(prefix)))

    def test_what_a_shared_one_does_not_tell_is_left_out(self) -> None:
        assert read_gpus("[N/A], 40\n") == {"gpu_use": 0.4}
