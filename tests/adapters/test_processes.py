"""A process is told apart from any other that had or will have its number."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adapters import processes
from adapters.processes import has_died, this_process
from lifecycle.leases import Owner

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def test_we_are_alive_and_read_back_equal() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert not has_died(here)
    assert Owner.parse(str(here)) == here


@linux_only
def test_a_killed_process_has_died_even_before_its_parent_looks() -> None:
    child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=-1, stdout=-1)
    assert child.stdout is not None
    child.stdout.readline()
    owner = replace(this_process(), pid=child.pid, started="")
    assert not has_died(owner)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    assert has_died(owner)
    child.communicate()
    assert has_died(owner)


@linux_only
def test_a_number_given_to_a_new_process_is_not_the_old_one() -> None:
    here = this_process()
    assert has_died(replace(here, started=str(int(here.started) - 1)))
    assert not has_died(replace(here, started=""))


@linux_only
def test_somebody_elses_process_lives_too() -> None:
    assert not has_died(replace(this_process(), pid=1, started=""))


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"kernel": "another.boot"}])
def test_what_we_cannot_look_into_is_never_known_to_be_gone(change: dict[str, str]) -> None:
    assert not has_died(replace(this_process(), pid=2**22 - 1, **change))


def test_where_the_system_shows_no_processes_none_is_known_to_be_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    here = this_process()
    assert Owner.parse(str(here)) == here
    assert not has_died(replace(here, pid=2**22 - 1))


@linux_only
def test_a_process_that_is_hidden_from_us_is_not_known_to_be_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    owner = replace(this_process(), pid=1, started="1")
    for name in ("sys", "self"):
        (tmp_path / name).symlink_to(Path("/proc") / name)
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert not has_died(owner)
