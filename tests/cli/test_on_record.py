"""How a run ended is on record, also when an interruption met it in the middle of something else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.ops_store import OpsStore
from cli.training import on_record
from lifecycle.errors import UnavailableError
from lifecycle.records import RunRecord, RunState

NOW = datetime.now(UTC)


@pytest.fixture
def ops(tmp_path: Path) -> OpsStore:
    return OpsStore.open(f"sqlite:///{tmp_path / 'ops.db'}")


@pytest.fixture
def run(ops: OpsStore) -> RunRecord:
    return ops.start_run(
        pipeline="train", model="m", stack="local", trigger_kind="manual", reason="r", requested_by="t", as_of=NOW,
        now=NOW, lease=timedelta(minutes=5),
    )  # fmt: skip


def test_an_interruption_that_a_framework_wrapped_is_one(ops: OpsStore, run: RunRecord):
    def work() -> None:
        try:
            raise KeyboardInterrupt  # noqa: TRY301
        except KeyboardInterrupt:
            raise RuntimeError("the step failed")  # noqa: B904 - as frameworks do

    with pytest.raises(KeyboardInterrupt), on_record(ops, run):
        work()
    assert ops.run(run.run_id).state is RunState.INTERRUPTED


def test_an_answer_inside_what_a_framework_raised_is_told(ops: OpsStore, run: RunRecord):
    def work() -> None:
        try:
            raise UnavailableError("the source does not answer")  # noqa: TRY301
        except UnavailableError as error:
            raise RuntimeError("the step failed") from error

    with pytest.raises(UnavailableError, match="does not answer"), on_record(ops, run):
        work()
    assert (ops.run(run.run_id).state, ops.run(run.run_id).detail) == (RunState.FAILED, "the source does not answer")
