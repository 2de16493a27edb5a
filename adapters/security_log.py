"""Who was refused by the gateway for want of a right, from its security log (R5.7)."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path

REFUSED = frozenset({401, 403})


def refused_by_address(serving: Path, start: datetime, end: datetime) -> dict[str, int]:
    """Requests of a window that were refused, by address; what the log has rotated away is not counted.

    Parameters
    ----------
    serving
        The gateway's folder.
    start, end
        First moment, and the first one after the window; with a time zone.
    """
    first, last = start.timestamp(), end.timestamp()
    found: Counter[str] = Counter()
    for path in sorted(serving.glob("security.log*")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    told = json.loads(line)
                    counts = told["status"] in REFUSED and first <= float(told["at"]) < last
                    address = str(told["address"])
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a rotation or a full disk
                found[address] += counts
    return {address: count for address, count in found.items() if count}
