from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from pplr_lightning.data.forked_map import forked_map, free_cores


def _where(number: int) -> tuple[int, int]:
    time.sleep(0.002)
    return number, os.getpid()


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_results_come_in_order(processes):
    with forked_map(processes) as map_in_processes:
        results = list(map_in_processes(_where, range(100)))
    assert [number for number, _ in results] == list(range(100))
    processes_seen = {process for _, process in results}
    assert (processes_seen == {os.getpid()}) == (processes < 2)
    assert len(processes_seen) <= max(1, processes)


def _fail(number: int) -> None:
    if number == 70:
        raise OSError("no space left on the disk")


def test_errors_are_those_of_the_call():
    with (
        pytest.raises(OSError, match="no space left"),
        forked_map(2) as map_in_processes,
    ):
        list(map_in_processes(_fail, range(100)))


def _kill(number: int) -> None:
    if number == 20:
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_process_is_an_error_of_one_line():
    with (
        pytest.raises(RuntimeError, match=r"one of 2 processes was killed.*OMP_NUM_THREADS=1"),
        forked_map(2) as map_in_processes,
    ):
        list(map_in_processes(_kill, range(100)))


def test_limit_of_threads_is_one_of_processes(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    for limit, expected in (("1", 1), ("0", 1), ("10000", cores), ("", cores), ("2,1", cores)):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert free_cores() == expected


def test_daemonic_process_computes_alone(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with get_context("fork").Pool(1) as pool:  # its processes are daemonic
        assert pool.apply(free_cores) == 1


# A main module without a guard: nothing may import it again.
ENDLESS = """
import os, sys, time
sys.path.insert(0, {path!r})
from forked_map import forked_map

def tell(number):
    os.write(1, b"%d\\n" % os.getpid())  # whole, whatever others write
    time.sleep(60)

with forked_map(2) as map_in_processes:
    list(map_in_processes(tell, range(64)))
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_a_killed_parent(signum):
    script = ENDLESS.format(path=str(Path(inspect.getfile(forked_map.__wrapped__)).parent))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.pid not in [int(run.stdout.readline()) for _ in range(2)]
        run.send_signal(signum)
        begin = time.monotonic()
        run.stdout.read()  # until the last process that holds it has ended
    assert run.returncode == -signum
    assert time.monotonic() - begin < 30  # each of their calls takes 60
