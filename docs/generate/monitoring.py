"""deploy/monitoring/: the alerting policy as Prometheus and Alertmanager read it (R6.1 to R6.5)."""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from cli.alerting import load_policies
from lifecycle.cluster_alerts import alertmanager_config, prometheus_rules

HEAD = "# Drawn by `uv run python -m docs.generate` from configs/policies; a test fails when it is stale.\n"


def rules_page() -> str:
    """Draw Prometheus' rules."""
    policy, _ = load_policies()
    return dumped(prometheus_rules(policy))


def routes_page() -> str:
    """Draw Alertmanager's configuration."""
    return dumped(alertmanager_config(*load_policies()))


class _Quoting(RoundTripRepresenter):
    """Quotes times of day: to YAML 1.1, which both programs read, 22:00 is the number 1320."""


def _text(representer: _Quoting, text: str) -> ScalarNode:
    quoted = '"' if re.fullmatch(r"\d+:\d+", text) else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=quoted)


_Quoting.add_representer(str, _text)


def dumped(value: dict[str, Any]) -> str:
    """Write a file's values as YAML that both programs read alike."""
    yaml, out = YAML(), io.StringIO()
    yaml.Representer = _Quoting
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(value, out)
    return HEAD + out.getvalue()
