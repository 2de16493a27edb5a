"""Processes of this host: the name of our own, and whether another still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from lifecycle.leases import Owner

_PROC = Path("/proc")
_UNKNOWN = "-"
_GONE = frozenset("ZX")  # a zombie runs no more, it only waits for its parent to look


def this_process() -> Owner:
    """Who we are, as it stands in the ops store."""
    pid = os.getpid()
    return Owner(socket.gethostname().replace("#", "-"), pid, _kernel(), _state_and_start(pid)[1])


def has_died(owner: Owner) -> bool:
    """Whether a process is gone for certain.

    Processes of another host, of another boot, in a namespace that we cannot look into, or whose state the
    system does not show are never known to be gone.
    """
    here = this_process()
    if (owner.host, owner.kernel) != (here.host, here.kernel) or here.kernel == _UNKNOWN:
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and is somebody else's
    state, started = _state_and_start(owner.pid)
    return state in _GONE or bool(owner.started and started and started != owner.started)


def _kernel() -> str:
    """Boot and process namespace, where the system has /proc."""
    try:
        boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()[:8]
        namespace = str(_PROC.joinpath("self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return _UNKNOWN
    return f"{boot}.{namespace}"


def _state_and_start(pid: int) -> tuple[str, str]:
    """State letter and start, in the kernel's ticks since boot; both empty when the system does not show them."""
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text()
    except OSError:
        return "", ""
    state, *fields = stat.rsplit(")", 1)[1].split()  # the name before may hold anything, parentheses too
    return state, fields[18]
