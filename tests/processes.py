"""Work on several real processes over gloo.

They are forked from a server that has imported the library once and started no thread, so that a
test with two or four processes does not wait for as many imports.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import socket
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[1]
SERVER = mp.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.preloaded"])


def launch(work, world_size, folder: Path, timeout: float = 120.0) -> list:
    """Runs `work(rank)` on ranks over gloo and returns what each returned or raised."""
    import cloudpickle  # pickles a function within a test, too; tests of a GPU do without

    arguments = (cloudpickle.dumps(work), world_size, str(folder), timeout)
    ranks = [SERVER.Process(target=_work, args=(rank, *arguments)) for rank in range(world_size)]
    for rank, code in enumerate(_finish(ranks, timeout=max(600.0, 4 * timeout))):
        if code:
            raise RuntimeError(f"process {rank} terminated with {code}")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world_size)]


def run_ranks(words: Sequence[str], world_size: int, folder: Path, *, timeout: float = 600.0):
    """Runs the command line on ranks as torchrun starts them.

    Returns:
        The first exit code that is not 0, or 0, and what all ranks wrote, those of rank 0 first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    ranks = [
        SERVER.Process(target=_command, args=(rank, world_size, port, list(words), str(folder)))
        for rank in range(world_size)
    ]
    codes = _finish(ranks, timeout=timeout)
    outputs = {
        name: "\n".join((folder / f"{rank}.{name}").read_text() for rank in range(world_size))
        for name in ("stdout", "stderr")
    }
    return SimpleNamespace(returncode=next((code for code in codes if code), 0), **outputs)


def run_launcher(words: Sequence[str], folder: Path, *, timeout: float = 600.0):
    """Runs the command line in one process, from which Lightning starts all others."""
    folder.mkdir(parents=True, exist_ok=True)
    first = SERVER.Process(target=_first, args=(list(words), str(folder)))
    (code,) = _finish([first], timeout=timeout)
    outputs = {name: (folder / f"0.{name}").read_text() for name in ("stdout", "stderr")}
    return SimpleNamespace(returncode=code, **outputs)


def _finish(ranks: list, *, timeout: float) -> list:
    """Starts processes and waits for them; one that fails, or takes too long, ends all."""
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + timeout
    while any(rank.is_alive() for rank in ranks) and time.monotonic() < deadline:
        if any(rank.exitcode not in (None, 0) for rank in ranks):
            deadline = min(deadline, time.monotonic() + 15)  # for the others to say why they end
        time.sleep(0.02)
    for rank in ranks:
        if rank.is_alive():
            rank.kill()
        rank.join()
    return [rank.exitcode for rank in ranks]


def _command(rank, world_size, port, words, folder):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="tests",
    )  # fmt: skip
    _main(rank, words, folder)


def _first(words, folder):
    # Lightning starts the others with the command of this process, the server's.
    sys.modules["__main__"].__spec__ = find_spec("pplr_lightning.__main__")
    _main(0, words, folder)


def _main(rank, words, folder):
    from pplr_lightning.cli import main

    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(f"{folder}/{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ["COLUMNS"] = "200"
    os.chdir(ROOT)
    torch.set_num_threads(1)
    sys.argv = ["pplr_lightning", *words]
    main(words)


def _work(rank, work, world_size, folder, timeout):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout),
    )
    try:
        result = pickle.loads(work)(rank)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    torch.save(result, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
