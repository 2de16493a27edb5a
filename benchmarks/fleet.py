"""A hundred models looked at in one go, each with 100,000 predictions in the window: ``uv run python -m benchmarks.fleet``.

The fleet is made beforehand: a model file for each (20 numbers and 10 categories of `lifecycle/members.py`), a version
with its reference in a real MLflow registry, and two weeks of predictions with outcomes that went through the real log
and its compaction; models share what was made once, in files of their own. One in ten has drifted, so that Evidently
draws its reports too. Measured is the command `run.py --pipeline monitor --model all` as a process, from its start to its
end: imports, ZenML, reading, judging, recording, drawing. The same with 10 models says whether a model costs the same.

    uv run python -m benchmarks.fleet [--models 100] [--rows 100000] [--folder FOLDER]

Last line, JSON: `models`, `wall_s`, `wall_s_10_models`, `peak_gb`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from adapters.ops_store import OpsStore
from adapters.prediction_archive import PredictionArchive
from adapters.prediction_log import Outcome, Prediction, PredictionLog, encode
from adapters.reference_file import encode as encode_reference
from adapters.registry import REFERENCE, Registry
from benchmarks.detection import member_spec
from benchmarks.watching import CLIENTS, ROOT, VERSION
from lifecycle.aliases import Alias
from lifecycle.members import CHURNED, KEY, OUTCOME, TIMESTAMP, Drift, MemberPlan, generate
from lifecycle.reference import reference_rows
from lifecycle.spec import GATEWAY, ModelSpec

START = datetime(2025, 3, 3, tzinfo=UTC)
WEEK = timedelta(weeks=1)
REFERENCE_WEEKS, TRAFFIC_WEEKS = 8, 2
REFERENCE_ROWS = 40_000
THRESHOLD = 0.3
DRIFTED_EVERY = 10
AS_OF = START + (REFERENCE_WEEKS + TRAFFIC_WEEKS) * WEEK
SEGMENT_BYTES = 16 * 1024 * 1024


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the label, and a score that goes with what makes members leave."""
    sessions, tenure = rows["sessions_30d"].fillna(9.0), rows["tenure_months"].fillna(16.0)
    logit = 0.2 - 0.5 * np.log1p(sessions) - 0.7 * np.tanh((tenure - 18) / 18) + 0.5 * (rows["plan"] == "free")
    return rows.assign(score=1 / (1 + np.exp(-logit)), left=(rows[OUTCOME] == CHURNED).astype(np.int8))


def base(folder: Path, spec: ModelSpec, rows: int, *, drifted: bool) -> Path:
    """One model's record, through the log and its compaction; the archive's folder."""
    first = START + REFERENCE_WEEKS * WEEK
    plan = MemberPlan(drifts=(Drift("age_years", AS_OF - WEEK, shift=0.6),) if drifted else ())
    frame = scored(generate(plan, TRAFFIC_WEEKS * rows, 1 + drifted, first, AS_OF).frame)
    frame = frame.sort_values(TIMESTAMP, ignore_index=True)
    clients = np.random.default_rng(0).choice(list(CLIENTS), len(frame), p=list(CLIENTS.values()))
    features = frame[spec.feature_names].astype(object).where(frame[spec.feature_names].notna(), None)
    log = PredictionLog.open(folder / "log", segment_bytes=SEGMENT_BYTES, first=1)
    waiting: list[bytes] = []
    for place, (at, member, score, left, values) in enumerate(
        zip(
            frame[TIMESTAMP].astype("int64") / 1e6, frame[KEY], frame["score"], frame["left"],
            features.to_dict("records"), strict=True,
        )
    ):  # fmt: skip
        request = f"r{place}"
        waiting.append(
            encode(
                Prediction(
                    request, at, spec.name, VERSION, "live", str(clients[place]), member, values, score,
                    int(score >= THRESHOLD), 3.0 + place % 5,
                )
            )
        )  # fmt: skip
        waiting.append(encode(Outcome(request, "", spec.name, int(left), at, at + 86_400, "crm")))
        if len(waiting) >= 1_000:
            log.append(waiting, 0)
            waiting = []
    if waiting:
        log.append(waiting, 0)
    log.close()
    # Whatever comes next begins another segment, and only finished ones go to the archive.
    log = PredictionLog.open(folder / "log", segment_bytes=1)
    log.append([encode(Outcome("r0", "", "nobody", 0, at, at, "crm"))], 0)
    log.close()
    archive = PredictionArchive(folder)
    archive.compact()
    return archive.folder


def fill(place: Path, models: int, spec: ModelSpec, bases: dict[bool, Path]) -> None:
    """Put so many models into a place: files, versions with references, aliases, traffic."""
    import mlflow

    for name in ("models", "home", "var/mlflow", "var/serving/archive", "var/serving/log"):
        (place / name).mkdir(parents=True)
    registry = Registry(f"sqlite:///{place / 'var' / 'mlflow' / 'mlflow.db'}")
    client = mlflow.MlflowClient(tracking_uri=registry.url, registry_uri=registry.url)
    ops = OpsStore.open(f"sqlite:///{place / 'var' / 'ops.db'}")
    held = scored(generate(MemberPlan(), REFERENCE_ROWS, 9, START, START + REFERENCE_WEEKS * WEEK).frame)
    reference = encode_reference(reference_rows(spec, held, held["score"]))
    said = spec.model_dump(mode="json", exclude_unset=True)
    archive = place / "var" / "serving" / "archive"
    for number in range(models):
        name = f"model_{number:03d}"
        (place / "models" / f"{name}.yaml").write_text(yaml.safe_dump({**said, "name": name}, sort_keys=False))
        experiment = registry.ensure_experiment(name)
        run = client.create_run(experiment).info.run_id
        registry.attach(run, {REFERENCE: reference})
        client.create_registered_model(name)
        tags = {"content": name, "threshold": str(THRESHOLD)}
        client.create_model_version(name, f"runs:/{run}/serving", run_id=run, tags=tags)
        trained = ops.start_run(
            pipeline="train", model=name, stack="local", trigger_kind="manual", reason="made", requested_by="benchmark",
            as_of=START, now=START, lease=WEEK,
        )  # fmt: skip
        ops.record_version(name, VERSION, trained.run_id, "s", "c", "approved", ["made"], START)
        ops.assign_aliases(
            name, lambda _: {Alias.CHAMPION: VERSION}, actor="benchmark", reason="made", now=AS_OF,
            environment="development",
        )  # fmt: skip
        source = bases[number % DRIFTED_EVERY == DRIFTED_EVERY - 1]
        for kind in ("predictions", "outcomes"):
            shutil.copytree(source / kind / f"model={spec.name}", archive / kind / f"model={name}")
    shutil.copy(bases[False] / "state.json", archive)


def command(place: Path) -> tuple[list[str], dict[str, str]]:
    """What is measured, and its surroundings."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PRODECKS_", "ZENML_", "MLFLOW_"))
    }
    surroundings = {
        **kept,
        "HOME": str(place / "home"),
        "PRODECKS_VAR": str(place / "var"),
        "PRODECKS_MODELS": str(place / "models"),
    }
    asked = ["--pipeline", "monitor", "--model", "all", "--as-of", AS_OF.isoformat(), "--json"]
    return [sys.executable, "run.py", *asked], surroundings


def look(place: Path, models: int) -> dict[str, Any]:
    """Run the command; its time, its peak memory, and what it found."""
    arguments, surroundings = command(place)
    before = time.perf_counter()
    with (place / "errors.txt").open("w") as errors:
        done = subprocess.run(arguments, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, stderr=errors, text=True)
    wall = time.perf_counter() - before
    if done.returncode:
        raise SystemExit((place / "errors.txt").read_text()[-2_000:])
    found = json.loads(done.stdout)
    states = [one["state"] for one in found if one["model"] != GATEWAY]
    assert states == ["monitored"] * models, sorted(set(states))
    drifted = [one["model"] for one in found if any(told["verdict"] == "WARN" and told["subject"] == "age_years" for told in one["findings"])]  # fmt: skip
    assert len(drifted) == models // DRIFTED_EVERY, drifted
    return {"wall_s": wall, "rows": sum(one["rows"] for one in found)}


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keep the fleet here, and use it when it is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        spec = member_spec()
        bases = {drifted: folder / f"base-{int(drifted)}" / "archive" for drifted in (False, True)}
        for drifted, archive in bases.items():
            if not archive.exists():
                base(archive.parent, spec, given.rows, drifted=drifted)
        walls = {}
        for models in dict.fromkeys((10, given.models)):
            place = folder / f"fleet-{models}"
            shutil.rmtree(place, ignore_errors=True)
            fill(place, models, spec, bases)
            walls[models] = look(place, models)
            print(f"{models} models, {walls[models]['rows']:,} rows: {walls[models]['wall_s']:.1f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    few, many = walls[10]["wall_s"], walls[given.models]["wall_s"]
    print(
        json.dumps(
            {
                "models": given.models,
                "wall_s": round(many, 1),
                "wall_s_10_models": round(few, 1),
                "s_per_further_model": round((many - few) / max(1, given.models - 10), 2),
                "peak_gb": round(peak, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
