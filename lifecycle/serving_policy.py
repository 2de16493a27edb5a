"""How the gateway behaves: everything about it that an operator may choose, in `configs/policies/serving.yaml` (R2.3, R4.3)."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import Field

from lifecycle.spec import Count, Rows, Section, Unit

Seconds = Annotated[float, Field(gt=0), Unit("seconds")]
Bytes = Annotated[Count, Unit("bytes")]


class Fsync(enum.StrEnum):
    """When a record counts as kept."""

    EVERY_GROUP = "every_group"
    """Before its answer: survives a loss of power."""
    INTERVAL = "interval"
    """Some milliseconds later: survives the process, and loses that much with the power."""
    NEVER = "never"
    """When the system pleases: survives the process."""


class Limits(Section):
    """What one client may ask."""

    rate: Annotated[float, Field(gt=0), Unit("requests a second")] | None = Field(
        None, description="Of one client; empty: no limit."
    )
    burst: Annotated[Count, Unit("requests")] = Field(100, description="A client may make at once under `rate`.")
    body_bytes: Bytes = Field(16 * 1024 * 1024, description="Largest body; a larger one is answered with 413.")
    body_seconds: Seconds = Field(30.0, description="Longest wait for more of a body; then 408.")
    idle_seconds: Annotated[Count, Unit("seconds")] = Field(
        75, description="A connection on which nothing is asked is closed."
    )


class Recording(Section):
    """How predictions are put on record."""

    fsync: Fsync = Field(
        Fsync.EVERY_GROUP,
        description="When a prediction counts as kept: before its answer (survives loss of power), every "
        "`sync_seconds`, or when the system pleases.",
    )
    sync_seconds: Seconds = Field(0.05, description="Time between two syncs with `fsync: interval`.")
    answer_unrecorded: bool = Field(
        False, description="While the log's disk takes nothing: answer all the same instead of refusing with 503."
    )
    segment_bytes: Annotated[int, Field(ge=4_096), Unit("bytes")] = Field(
        64 * 1024 * 1024, description="A larger segment of the log is finished, and can go to the archive."
    )
    segment_seconds: Seconds = Field(3_600.0, description="So is an older one, once something more is written.")
    remembered: Rows = Field(
        320_000, description="Newest predictions whose outcomes are placed at once, also after a restart."
    )


class Archiving(Section):
    """How finished segments become the archive."""

    every_seconds: Seconds = Field(3_600.0, description="Time from one compaction by `operate` to the next.")


class ServingPolicy(Section):
    """How the gateway of a machine behaves."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; without keys only a loopback one.")
    follow_seconds: Seconds = Field(0.1, description="Time between two looks at the routing tables.")
    stop_seconds: Annotated[Count, Unit("seconds")] = Field(
        10, description="Longest wait for open requests at its end."
    )
    limits: Limits = Field(Limits(), description="What one client may ask.")
    recording: Recording = Field(Recording(), description="How predictions are put on record.")
    archive: Archiving = Field(Archiving(), description="How finished segments become the archive.")
