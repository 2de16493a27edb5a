"""The pages that are drawn from code and data, never kept up by memory: `uv run python -m docs.generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.generate import commands, model_file, monitoring, requirements

DOCS = Path(__file__).resolve().parent.parent

PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands.page,
    "model-file.md": model_file.page,
    "requirements.md": requirements.page,
    "../deploy/monitoring/prometheus-rules.yml": monitoring.rules_page,
    "../deploy/monitoring/alertmanager.yml": monitoring.routes_page,
}
"""Page in docs/: what draws it. A test compares each with its file."""
