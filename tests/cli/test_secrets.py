"""Secrets given to the command, each in another place, stand in no output, ops store, audit row, MLflow run or log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import MODEL, Place

pytestmark = pytest.mark.requirement("R5.7")
SECRET = "planted-4c1e8d"
URL = f"postgresql://ops:{SECRET}@127.0.0.1:9/ops"
ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "MLFLOW_TRACKING_PASSWORD": SECRET,
    "PRODECKS_OIDC_ISSUER": f"https://id:{SECRET}@id.example",
    "PGPASSWORD": SECRET,
    "HTTPS_PROXY": f"http://me:{SECRET}@127.0.0.1:9",
    "GITHUB_TOKEN": f"ghp_{SECRET}",
}
BY, WHY = ("--by", f"Mina (password: {SECRET})"), ("--reason", f"see https://me:{SECRET}@wiki, token={SECRET}")
COMMANDS: dict[str, tuple[str, ...]] = {
    "override's reason and name": (
        "override",
        "grant",
        "churn",
        "--gate",
        "roc_auc",
        "--until",
        "DAY",
        *BY,
        *WHY,
    ),
    "override's gate": ("override", "grant", "churn", "--gate", f"token={SECRET}", "--until", "DAY", *BY, *WHY),
    "override's day": ("override", "grant", "churn", "--gate", "roc_auc", "--until", f"token={SECRET}", *BY, *WHY),
    "overrides": ("override", "list", "churn"),
    "deployment's reason and name": ("--pipeline", "deploy", "--model", "churn", "--version", "1", *BY, *WHY),
    "pause": ("rollout", "pause", "churn", *BY, *WHY),
    "resume": ("rollout", "resume", "churn", *BY, *WHY),
    "rollback": ("rollout", "rollback", "churn", *BY, *WHY),
    "promotion": ("rollout", "promote", "churn", *BY, *WHY),
    "approval": ("rollout", "approve", "churn", *BY, *WHY),
    "refusal": ("rollout", "refuse", "churn", *BY, *WHY),
    "rollout": ("rollout", "status", "churn"),
    "rollout as JSON": ("rollout", "status", "churn", "--json"),
    "story": ("rollout", "history", "churn"),
    "history": ("history", "churn", "--at", f"token={SECRET}"),
    "state": ("models", "versions", "churn"),
    "keys of a client": ("keys", "add", f"app token={SECRET}", "--role", "predict"),
    "keys": ("keys", "list"),
}
ADDRESSES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "ops store": (("override", "list", "churn"), {"PRODECKS_OPS_URL": URL}),
    "registry": (("models", "versions", "churn"), {"PRODECKS_REGISTRY_URL": f"http://me:{SECRET}@127.0.0.1:9"}),
    "source": (("new-model", "x", "--table", "t", "--label", "y"), {"PRODECKS_SOURCE_URL": URL}),
    "source of another kind": (
        ("new-model", "x", "--table", "t", "--label", "y"),
        {"PRODECKS_SOURCE_URL": f"mysql://me:{SECRET}@h/d"},
    ),
    "stack": (("stacks", "show", "local"), {"PRODECKS_OPS_URL": URL}),
    "identity provider": (("serve", "--port", "0"), {"PRODECKS_OIDC_JWKS_URL": f"https://me:{SECRET}@id/keys"}),
}


def kept(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_secret_in_any_place_is_in_no_output_and_nothing_that_is_kept(place: Place, workspace: Place):
    codes = {}
    until = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
    for name, command in COMMANDS.items():
        told = place.call(*(until if part == "DAY" else part for part in command), **ENVIRONMENT)
        codes[name] = told.code
        assert SECRET not in told.out + told.err, name
        assert "Traceback" not in told.err, told.err
    for name, (command, addresses) in ADDRESSES.items():
        told = place.call(*command, **(ENVIRONMENT | addresses))
        codes[name] = told.code
        assert SECRET not in told.out + told.err, name
        assert "Traceback" not in told.err, told.err
    # Some were done, the others answered for.
    assert codes["override's reason and name"] == codes["overrides"] == codes["state"] == codes["keys"] == 0, codes
    # ZenML, which keeps the parameters of each run, has its folder in the workspace of all tests.
    found = {**kept(place.var), **kept(workspace.var / "zenml")}
    assert any(name.endswith("ops.db") for name in found)
    assert any(name.endswith("zenml.db") for name in found)
    assert [name for name, content in found.items() if SECRET.encode() in content] == []
    assert len(COMMANDS) + len(ADDRESSES) + len(ENVIRONMENT) >= 30


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tier: secondary", f"tier: secondary\npassword: {SECRET}"),
        ("tier: secondary", f"tier: password={SECRET}"),
        ("source: {table: members,", f"source: {{table: members, url: 'postgresql://me:{SECRET}@db/x',"),
        ("min_rows: 300", f"min_rows: 'token={SECRET}'"),
        ("description: Probability", f"description: [token={SECRET}] Probability"),
    ],
)
def test_a_model_file_that_holds_a_secret_is_refused_without_it(place: Place, before: str, after: str):
    assert before in MODEL
    (place.models / "churn.yaml").write_text(MODEL.replace(before, after))
    told = place.call("models", "check")
    assert told.code == 2
    assert "churn.yaml:" in told.out
    assert SECRET not in told.out + told.err
