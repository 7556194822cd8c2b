"""Processes that share a run, forked from one interpreter, whose imports they need not repeat.

As a program, `forked_ranks.py COUNT ARGUMENT ...` calls the command line of `pipelines/run.py` in COUNT processes.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess


def fork_ranks(count: int, work: Callable[[int, int], None]) -> list[BaseProcess]:
    """Start `work(rank, count)` for every rank. The calling process must not have used several threads."""
    started: list[BaseProcess] = [
        multiprocessing.get_context("fork").Process(target=work, args=(rank, count)) for rank in range(count)
    ]
    for process in started:
        process.start()
    return started


def all_ended_well(processes: Sequence[BaseProcess]) -> bool:
    """Wait for the processes; returns whether none has failed."""
    for process in processes:
        process.join()
    return not any(process.exitcode for process in processes)


def run(count: int, arguments: list[str]) -> bool:
    """Call the command line in `count` processes with the variables that torchrun sets; returns whether none failed."""
    from steindreamer.pipelines.cli.run import main
    from steindreamer.pipelines.runs import following, runner  # imported before the processes are forked  # noqa: F401

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}

    def work(rank: int, count: int) -> None:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
        sys.exit(main(arguments))

    return all_ended_well(fork_ranks(count, work))


if __name__ == "__main__":
    sys.exit(not run(int(sys.argv[1]), sys.argv[2:]))
