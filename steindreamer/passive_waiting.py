"""Importing this module, before torch and numba, lets idle OpenMP threads sleep instead of spin.

Threads that spin at a barrier take the cores from the others: two processes with parallel kernels on the same cores
slow each other down severely. OpenMP reads OMP_WAIT_POLICY when its library is loaded, with torch at the latest; a
value that is set already stays, and child processes inherit it.
"""

import os
import time
from pathlib import Path

_IS_CHOSEN = "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SPINS = 10_000
"""Iterations that a waiting thread spins in `spin_if_alone` before it sleeps, some tens of microseconds.

Waking up a thread takes longer than many of the small operations of a run: on two idle cores, a step of the default
coarse stage takes 55 ms with this number and 90 ms without (300,000, the default of libgomp: 52 ms). Two such runs at
once take 62 ms per step without, 112 ms with 5,000 and 270 ms with 20,000 each.
"""
_LOOKS, _SECONDS_BETWEEN = 4, 0.01


def spin_if_alone() -> None:
    """Let waiting threads spin shortly if no other process computes now; call it before torch and numba are imported.

    It has no effect if the environment sets OMP_WAIT_POLICY or GOMP_SPINCOUNT, in a process of torchrun, and where the
    number of running tasks is unknown (other systems than Linux, whose OpenMP library is another one anyway).
    """
    if not _IS_CHOSEN and "RANK" not in os.environ and _is_alone():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


def _is_alone() -> bool:
    """Whether this is the only task that runs, in several looks."""
    for look in range(_LOOKS):
        if look:
            time.sleep(_SECONDS_BETWEEN)
        try:
            running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return False
        if running > 1:
            return False
    return True
