"""The processes that `torchrun` starts for one run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from ..errors import UserError

PATIENCE = timedelta(days=7)
"""Longest time that a process waits for the others, such as for the leader's export. If one dies, all end at once."""


def launched_rank(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The rank of this process and the number of processes, from the variables that `torchrun` sets.

    Raises UserError for values that do not fit together.
    """
    try:
        rank, count = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
    except ValueError:
        rank, count = -1, -1
    if not 0 <= rank < count:
        given = ", ".join(f"{name}={environment.get(name)}" for name in ("RANK", "WORLD_SIZE"))
        raise UserError(f"{given} in the environment; torchrun sets RANK from 0 to WORLD_SIZE - 1, or unset both")
    return rank, count


@contextmanager
def joined(rank: int, count: int) -> Iterator[None]:
    """Join the processes of a run within the context, each with a GPU of its own if there are GPUs.

    Only the leader handles signals: it saves the state, and lets the others end. Raises UserError without the address
    of the leader, if there are fewer GPUs than processes on this machine, and when another process ends early.
    """
    if count == 1:
        yield
        return
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE={count} asks for {count} processes, but the environment lacks {' and '.join(missing)}; start "
            "the run by torchrun, or unset RANK and WORLD_SIZE for a run of one process"
        )
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", rank))
        if local >= torch.cuda.device_count():
            raise UserError(
                f"this is process {local + 1} of this machine, which has {torch.cuda.device_count()} GPUs; start one "
                "per GPU: torchrun --nproc_per_node=gpu"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    if rank:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise UserError(
            f"process {rank} lost its connection to the others, of which one has ended; continue with --resume"
        ) from error
    dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error says that another process has ended. Gloo has no class of its own for that."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(word in str(error) for word in ("gloo", "Connection", "peer"))
