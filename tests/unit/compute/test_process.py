from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genai_operators.compute.process import ProcessIdentity
from tests.fakes.workload_run import wait_for

# A parent that binds a child, which starts a child of its own; each writes its number and waits.
FAMILY = """
import os, sys, time
from pathlib import Path
from genai_operators.compute.process import Guard, spawn_bound
folder = Path(sys.argv[1])
grandchild = "import time; time.sleep(600)"
child = (
    "import subprocess, sys, time; from pathlib import Path;"
    f"p = subprocess.Popen([sys.executable, '-c', {grandchild!r}]);"
    f"Path({str(folder / 'grandchild')!r}).write_text(str(p.pid)); time.sleep(600)"
)
process = spawn_bound([sys.executable, "-c", child], env=dict(os.environ), cwd=folder)
guard = Guard(process.pid) if sys.argv[2] == "guard" else None
(folder / "child").write_text(str(process.pid))
time.sleep(600)
"""


@pytest.fixture
def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


class TestIdentity:
    def test_is_alive_until_it_is_killed_even_as_a_zombie(self, sleeper: subprocess.Popen[bytes]) -> None:
        identity = ProcessIdentity.of(sleeper.pid)
        assert identity.is_alive()
        sleeper.kill()
        wait_for(lambda: not identity.is_alive())  # nobody has waited for it: it is a zombie
        sleeper.wait()
        assert not identity.is_alive()

    def test_another_process_of_the_same_number_is_not_it(self, sleeper: subprocess.Popen[bytes]) -> None:
        identity = ProcessIdentity.of(sleeper.pid)
        record = {**identity.to_json(), "started": "1"}
        assert not ProcessIdentity.from_json(record).is_alive()
        record = {**identity.to_json(), "boot": "an earlier one"}
        assert not ProcessIdentity.from_json(record).is_alive()
        sleeper.kill()
        sleeper.wait()

    def test_knows_whether_it_can_know(self) -> None:
        identity = ProcessIdentity.of(os.getpid())
        assert identity.is_local()
        assert not ProcessIdentity.from_json({**identity.to_json(), "host": "elsewhere"}).is_local()


class TestKilledParent:
    def family(self, folder: Path, how: str, project_root: Path) -> dict[str, ProcessIdentity]:
        env = {**os.environ, "PYTHONPATH": str(project_root / "plugins")}
        parent = subprocess.Popen([sys.executable, "-c", FAMILY, str(folder), how], env=env)
        identities = {"parent": ProcessIdentity.of(parent.pid)}
        for name in ("child", "grandchild"):
            text = wait_for(lambda n=name: (folder / n).exists() and (folder / n).read_text(), what=name)
            identities[name] = ProcessIdentity.of(int(text))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        return identities

    def test_takes_its_child_and_grandchild_along(self, tmp_path: Path, project_root: Path) -> None:
        family = self.family(tmp_path, "guard", project_root)
        wait_for(lambda: not any(identity.is_alive() for identity in family.values()))

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the guard binds them")
    def test_takes_its_child_along_even_without_a_guard(self, tmp_path: Path, project_root: Path) -> None:
        family = self.family(tmp_path, "no guard", project_root)
        wait_for(lambda: not family["child"].is_alive())
        os.kill(family["grandchild"].pid, signal.SIGKILL)
