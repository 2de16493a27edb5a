"""The least that a model file may hold, for tests that are about one section of it."""

from __future__ import annotations

from typing import Any

from lifecycle.spec import ModelSpec

SECTIONS: dict[str, Any] = {
    "name": "m",
    "description": "d",
    "owner": {"team": "t", "contact": "c"},
    "tier": "main",
    "sensitivity": "non_sensitive",
    "source": {"table": "t", "timestamp": "ts", "entity_key": "id"},
    "label": {"column": "y", "meaning": "yes"},
    "features": [{"name": "x", "type": "numeric"}],
    "evaluation": {"gates": [{"metric": "roc_auc", "min": 0.6}]},
    "business": {"currency": "EUR", "decision": "call", "true_positive": 1, "false_positive": -1},
}


def minimal_spec(**sections: Any) -> ModelSpec:
    """A valid model file with one numeric feature; `sections` replace or add some."""
    return ModelSpec.model_validate(SECTIONS | sections)


def grouped_spec() -> ModelSpec:
    """One with groups ``g`` and slices ``c``, which are judged from few rows on."""
    return minimal_spec(
        sensitivity="sensitive",
        features=[{"name": "x", "type": "numeric"}, {"name": "c", "type": "categorical"}],
        sensitive=[{"name": "gender", "column": "g"}],
        evaluation={
            "gates": [{"metric": "roc_auc", "min": 0.6}],
            "slices": ["c"],
            "bootstrap": 100,
            "min_group_rows": 50,
            "min_group_class_rows": 10,
            "min_rows": 100,
        },
        business={"currency": "EUR", "decision": "call", "true_positive": 12, "false_positive": -3},
    )
