"""The PostgreSQL that other tests rely on is a real one, fresh for each test."""

from __future__ import annotations

import psycopg2
import pytest


@pytest.mark.postgres
@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_gets_an_empty_database(postgres_url: str, turn: int) -> None:
    connection = psycopg2.connect(postgres_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE only_here AS SELECT 1 AS one")
            cursor.execute("SELECT count(*) FROM only_here")
            assert cursor.fetchone() == (1,)
    finally:
        connection.close()
