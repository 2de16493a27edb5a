"""What a running pipeline shows on a terminal; nothing at all when the output is piped."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from steps.progress import Event, listening


@contextlib.contextmanager
def showing_progress(title: str) -> Iterator[None]:
    """Show phases, each with its bar and what it last told, while the body runs.

    Parameters
    ----------
    title
        What is being worked on.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    progress = Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("[bold]{task.description:<10}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        # A file of its own: standard error itself is muted while TensorFlow is imported.
        console=Console(file=terminal),
        transient=title.startswith("setting up"),
    )
    tasks: dict[str, Any] = {}

    def show(event: Event) -> None:
        if event.phase not in tasks:
            for other in tasks.values():  # a later phase: the earlier ones are over
                shown = progress.tasks[other]
                progress.update(other, total=shown.total or 1, completed=shown.total or 1)
            tasks[event.phase] = progress.add_task(event.phase, total=event.total, text="")
        total = event.total if event.total is not None else progress.tasks[tasks[event.phase]].total
        progress.update(tasks[event.phase], completed=event.done, total=total, text=event.text)

    with terminal, progress, listening(show):
        show(Event("start", title))
        yield
        for task in tasks.values():
            total = progress.tasks[task].total or 1
            progress.update(task, total=total, completed=total)
