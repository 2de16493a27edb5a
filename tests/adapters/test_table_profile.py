"""Rules of a profile: a table nobody prepared for it becomes a model file that trains without edits."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from adapters.source import fetch, newest_row
from adapters.table_profile import profile_table
from lifecycle.errors import DataError
from lifecycle.profiling import draft
from lifecycle.spec import ModelSpec

pytestmark = pytest.mark.requirement("R3.5")


def customers(number: int = 600, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    y = rng.random(number) < 0.3
    frame = {
        "customer_id": [f"C{i:05d}" for i in range(number)],
        "joined_at": pd.date_range("2023-01-01", periods=number, freq="6h"),
        "spend": rng.normal(size=number) + y,
        "plan": rng.choice(["basic", "plus"], number),
        "churned": y.astype(int),
    }
    return pd.DataFrame({**frame, **columns})


def test_breast_cancer_and_a_messy_table_are_drafted_and_fetched_without_edits(tmp_path):
    from sklearn.datasets import load_breast_cancer

    cancer = load_breast_cancer(as_frame=True).frame
    cancer = cancer.assign(case=range(len(cancer)), seen=pd.date_range("2020-01-01", periods=len(cancer), freq="D"))
    messy = customers(3_000).rename(
        columns={"customer_id": "Customer ID", "joined_at": "joined at", "churned": "order"}
    )
    messy = messy.assign(
        **{"select": [["a", "b c", "d'e", None][i % 4] for i in range(3_000)], "1/x": [np.inf, *np.ones(2_998), 2.0]},
        closed=pd.to_datetime(messy["joined at"]).where(messy["order"] == 1), list=[[1, 2]] * 3_000,
    )  # fmt: skip
    path = tmp_path / "s.duckdb"
    with duckdb.connect(str(path)) as connection:
        for table, frame in {"cancer": cancer, "messy": messy}.items():
            connection.register("given", pa.Table.from_pandas(frame, preserve_index=False))
            connection.execute(f"CREATE TABLE {table} AS FROM given")
            connection.unregister("given")
    url = f"duckdb:///{path}"
    for table, label, features in (("cancer", "target", 25), ("messy", "order", 4)):
        options = {} if table == "cancer" else {"timestamp": "joined at"}
        spec = ModelSpec.model_validate(yaml.safe_load(draft(table, profile_table(url, table), label, **options)))
        snapshot = fetch(spec, url, newest_row(spec, url), 0)
        assert len(spec.features) == features
        assert len(snapshot.frame) >= spec.quality.min_rows
        assert np.isfinite(snapshot.frame.select_dtypes("float64").fillna(0.0).to_numpy()).all()


@pytest.mark.postgres
def test_a_table_looks_the_same_in_both_databases(tmp_path, postgres_url):
    import sqlalchemy

    frame = customers(800, rate=[np.inf, None, *np.linspace(0, 1, 798)], flag=[True, False] * 400)
    with duckdb.connect(str(tmp_path / "s.duckdb")) as connection:
        connection.register("given", pa.Table.from_pandas(frame, preserve_index=False))
        connection.execute("CREATE TABLE customers AS FROM given")
    engine = sqlalchemy.create_engine(postgres_url)
    frame.to_sql("customers", engine, index=False)
    engine.dispose()
    here, there = (profile_table(url, "customers") for url in (f"duckdb:///{tmp_path / 's.duckdb'}", postgres_url))
    assert draft("churn", here, "churned") == draft("churn", there, "churned")
    sampled = profile_table(postgres_url, "customers", sample_rows=200)
    assert 120 < len(sampled.sample) < 280
    assert draft("churn", sampled, "churned").count("type: numeric") == 2


def test_a_missing_table_is_told_with_the_nearest_name(tmp_path):
    with duckdb.connect(str(tmp_path / "s.duckdb")) as connection:
        connection.execute("CREATE TABLE customers (a INT)")
    with pytest.raises(DataError, match=r"no table 'customer' in .*; nearest: customers"):
        profile_table(f"duckdb:///{tmp_path / 's.duckdb'}", "customer")
    assert profile_table(f"duckdb:///{tmp_path / 's.duckdb'}", "customers").rows == 0
