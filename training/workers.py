"""Parallel rendering of a training set with worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numba
import torch


def run_in_processes(function: Callable[..., None], jobs: Sequence[tuple[Any, ...]], processes: int, what: str) -> None:
    """Call `function(*job)` for every job in worker processes with one thread each, and print the progress."""
    # Spawn, because OpenMP does not work after a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_work_quietly) as pool:
        for done, _ in enumerate(pool.map(function, *zip(*jobs, strict=True)), 1):
            print(f"{what}: {done} of {len(jobs)} parts", flush=True)


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Restore the number of PyTorch threads after the context; Numba's OpenMP changes it for the whole process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _work_quietly() -> None:
    """Limit a worker to one thread."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)
