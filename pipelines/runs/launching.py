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

    Only the leader handles signals: it saves the state, and lets the others end. Raises UserError if there are fewer
    GPUs than processes on this machine.
    """
    if count == 1:
        yield
        return
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
    finally:
        dist.destroy_process_group()
