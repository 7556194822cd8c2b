"""Waiting threads sleep, unless a run has the machine for itself or the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
import steindreamer.passive_waiting as waiting
waiting._is_alone = lambda: sys.argv[1] == "alone"
waiting.spin_if_alone()
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("given", "machine", "expected"),
    [
        ({}, "alone", "PASSIVE 10000 False"),
        ({}, "busy", "PASSIVE None False"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "alone", "PASSIVE None False"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "alone", "ACTIVE None False"),
        ({"GOMP_SPINCOUNT": "7"}, "alone", "PASSIVE 7 False"),
        ({"RANK": "0"}, "alone", "PASSIVE None False"),
    ],
)
def test_how_threads_wait(given: dict[str, str], machine: str, expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    call = [sys.executable, "-c", PROGRAM, machine]
    done = subprocess.run(call, env={**clean, **given}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


@pytest.mark.skipif(not os.path.exists("/proc/loadavg"), reason="needs Linux")
def test_a_busy_machine_is_noticed() -> None:
    from steindreamer.passive_waiting import _is_alone

    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert not _is_alone()
    finally:
        for process in busy:
            process.kill()
            process.wait()
