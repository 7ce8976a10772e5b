from __future__ import annotations

import csv
import threading

import pytest
import torch

from pplr_lightning.data.image_loader import prefetched

CPU = torch.device("cpu")


def test_batches_come_in_order_from_another_thread():
    threads = []

    def batches():
        for number in range(5):
            threads.append(threading.current_thread())
            yield number

    assert list(prefetched(batches(), CPU)) == [0, 1, 2, 3, 4]
    assert threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_so_many_are_made_ahead():
    made = []

    def batches():
        for number in range(9):
            made.append(number)
            yield number

    coming = prefetched(batches(), CPU)
    assert next(coming) == 0
    coming.close()  # waits for what is in the making
    assert made == [0, 1, 2]


def test_an_error_comes_in_its_turn():
    def batches():
        yield 0
        raise LookupError("the second batch")

    coming = prefetched(batches(), CPU)
    assert next(coming) == 0
    with pytest.raises(LookupError, match="the second batch"):
        next(coming)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_is_on_the_gpu_that_the_batches_are_for():
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    made = prefetched((torch.cuda.current_device() for _ in range(1)), device)
    assert list(made) == [device.index]


def test_training_is_the_very_same_with_and_without_a_cache(run, run_args, tmp_path):
    """Twenty steps of two epochs, labels and evaluation included; not a bit differs."""
    logged = []
    for cache in ("ram", "none"):
        options = ("--data.iterations=10", "--data.random_erasing=0.5", f"--data.cache={cache}")
        run("fit", *run_args, *options, f"--trainer.logger.init_args.version={cache}")
        with (tmp_path / "demo" / cache / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        logged.append([{k: v for k, v in row.items() if "time/" not in k} for row in rows])
    assert logged[0] == logged[1]
    assert len({row["train/loss"] for row in logged[0]} - {""}) == 20
