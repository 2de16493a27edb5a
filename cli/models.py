"""Verbs over models: list, check, draft, prove, versions."""

from __future__ import annotations

import sys
from dataclasses import asdict

from adapters.model_files import check_models, environment_names, load_model, model_names, shown
from adapters.services import models_folder
from cli.show import console, print_json, table, verdict
from cli.workspace import Workspace
from lifecycle.aliases import registry_name
from lifecycle.errors import ConfigError, UnavailableError
from lifecycle.findings import Verdict


def chosen(names: list[str]) -> list[str]:
    """Spell out ``all``; names once each, in the order given."""
    known = model_names(models_folder())
    return list(dict.fromkeys(name for given in names for name in (known if given == "all" else [given])))


def list_models(*, as_json: bool) -> None:
    """Print the models; a file with errors is named and does not hide the others."""
    specs, problems = check_models(models_folder())
    if as_json:
        print_json([spec.model_dump(mode="json") for spec in specs])
    else:
        columns = (
            "model",
            "owner",
            "tier",
            "sensitivity",
            "retrained",
            "source",
            "features#",
            "gates#",
            "what it says",
        )
        rows = [
            (
                spec.name,
                spec.owner.team,
                spec.tier.value,
                spec.sensitivity.value.replace("_", "-"),
                spec.schedule,
                spec.source.table,
                len(spec.features),
                len(spec.evaluation.gates),
                spec.description,
            )
            for spec in specs
        ]
        console().print(table("models", columns, rows))
    for path in sorted({problem.path for problem in problems}):
        sys.stderr.write(f"{path} has errors: run.py models check\n")


def check(*, as_json: bool) -> int:
    """Print everything wrong in the model files; the exit code."""
    from adapters.expectations import problems as expectation_problems
    from adapters.model_files import FileProblem

    specs, problems = check_models(models_folder())
    for spec in specs:
        path = shown(models_folder() / f"{spec.name}.yaml")
        problems += [FileProblem(path, 1, "quality.expectations", text) for text in expectation_problems(spec)]
    if as_json:
        print_json({"valid": [spec.name for spec in specs], "problems": [asdict(problem) for problem in problems]})
    else:
        for problem in problems:
            sys.stdout.write(f"{problem}\n")
        sys.stdout.write(f"{len(model_names(models_folder()))} model files, {len(problems)} problems\n")
    return ConfigError.exit_code if problems else 0


def draft(name: str, source_table: str, label: str, timestamp: str | None, entity: str | None, stack: str) -> None:
    """Profile a table and write the drafted model file; never over one that exists."""
    from adapters.table_profile import profile_table
    from lifecycle.profiling import draft as drafted_from

    path = models_folder() / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{shown(path)} exists; accepted: a new name, or remove the file first")
    workspace = Workspace.open(stack)
    workspace.ensure_sample_database()
    profile = profile_table(workspace.services.source, source_table)
    text = drafted_from(name, profile, label, timestamp, entity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{shown(path)} exists; accepted: a new name, or remove the file first") from None
    except OSError as error:
        raise UnavailableError(f"{shown(path)} cannot be written: {error.strerror}") from None
    spec = load_model(name, folder=models_folder())
    out = console()
    out.print(
        f"{shown(path)} drafted from {source_table}: {profile.rows:,} rows, {len(profile.columns)} columns, "
        f"{len(spec.features)} features; positive is {spec.label.meaning}",
        markup=False,
    )
    left_out = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    if left_out:
        out.print()
        out.print(table("left out", ("column", "why"), (line.split(": ", 1) for line in left_out)))
    out.print(f"\nread it, then: python run.py --pipeline train --model {name}", markup=False)


def prove(names: list[str], *, as_json: bool) -> int:
    """Show every gate of the models firing, passing and lacking data; 1 when one cannot."""
    from lifecycle.proving import prove as proofs_of

    specs = [load_model(name, folder=models_folder()) for name in chosen(names)]
    proofs = {spec.name: proofs_of(spec) for spec in specs}
    proven = all(proof.proven for found in proofs.values() for proof in found)
    if as_json:
        print_json({name: [proof.to_dict() for proof in found] for name, found in proofs.items()})
        return 0 if proven else 1
    out = console()
    for spec in specs:
        rows = [
            (
                proof.gate,
                proof.subject,
                f"{proof.direction.sign} {proof.threshold:g}",
                proof.fires or "no case found",
                proof.passes or "no case found",
                proof.lacks_data or "no case found",
                verdict(Verdict.PASS if proof.proven else Verdict.FAIL),
            )
            for proof in proofs[spec.name]
        ]
        columns = ("gate", "on", "asked", "fires on", "passes on", "no data on", "proven")
        out.print(table(f"{spec.name}: gates on data made for them", columns, rows))
        out.print()
    out.print("every gate can fire, pass and lack data" if proven else "a gate cannot do what it is for: see above")
    return 0 if proven else 1


def versions(model: str, stack: str, *, as_json: bool) -> None:
    """Print a model's registered versions, newest first."""
    from adapters.ops_store import OpsStore

    workspace = Workspace.open(stack)
    load_model(model, workspace.environment, models_folder())
    ops = OpsStore.open(workspace.services.ops)
    found = ops.versions(model)
    parts: dict[str, list[str]] = {}
    for environment in environment_names():
        for alias, version in ops.aliases(model, environment).items():
            parts.setdefault(version, []).append(registry_name(environment, alias))
    if as_json:
        print_json([{**asdict(record), "aliases": parts.get(record.version, [])} for record in found])
        return
    columns = ("version#", "state", "alias", "since (UTC)", "snapshot", "reasons")
    rows = [
        (
            one.version,
            one.state.value,
            ", ".join(parts.get(one.version, [])),
            one.at,
            one.snapshot,
            "; ".join(one.reasons),
        )
        for one in found
    ]
    console().print(table(f"versions of {model}", columns, rows))
