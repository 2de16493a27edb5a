"""Work spread over processes of this machine, in which an item that kills its process fails alone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")

# Each process works for itself: more threads inside it only get in one another's way.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def spread(
    work: Callable[[str], Result], items: Sequence[str], workers: int
) -> Iterator[tuple[str, Result | BrokenProcessPool]]:
    """Do the work for each item, as they end; BrokenProcessPool for one whose process was killed over it.

    Parameters
    ----------
    work
        A function of a module, or a partial of one; it raises nothing that it expects.
    items
        Each once.
    workers
        Processes.
    """
    left = set(items)
    with _pool(workers) as pool:
        waiting = {pool.submit(work, item): item for item in items}
        for future in as_completed(waiting):
            try:
                result = future.result()
            except BrokenProcessPool:
                continue  # whose fault it was, nobody can tell yet
            left.discard(waiting[future])
            yield waiting[future], result
    for item in [item for item in items if item in left]:
        with _pool(1) as alone:
            try:
                yield item, alone.submit(work, item).result()
            except BrokenProcessPool as error:
                yield item, error


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    # Forked, a process would inherit the locks of threads that it does not have.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
