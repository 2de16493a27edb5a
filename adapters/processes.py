"""Processes of this host: the name of our own, and whether another still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from lifecycle.leases import Owner

_PROC = Path("/proc")


def this_process() -> Owner:
    """Who we are, as it stands in the ops store."""
    pid = os.getpid()
    return Owner(socket.gethostname().replace("#", "-"), pid, _kernel(), _started(pid) or "")


def has_died(owner: Owner) -> bool:
    """Whether a process is gone for certain.

    Processes of another host, of another boot, or in a namespace that we cannot look into are never known
    to be gone.
    """
    here = this_process()
    if (owner.host, owner.kernel) != (here.host, here.kernel):
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and is somebody else's
    started = _started(owner.pid)
    if started is None:
        return _PROC.joinpath("self/stat").exists()  # it ended between the two looks, or is a zombie
    return bool(owner.started) and started != owner.started


def _kernel() -> str:
    """Boot and process namespace; a dash where the system has no /proc."""
    try:
        boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()[:8]
        namespace = str(_PROC.joinpath("self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return "-"
    return f"{boot}.{namespace}"


def _started(pid: int) -> str | None:
    """Start of a process in the kernel's ticks since boot; None when it is gone, a zombie, or not told."""
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rsplit(")", 1)[1].split()  # the name before may hold anything, parentheses too
    return None if state in "ZX" else fields[18]
