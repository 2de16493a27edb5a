import shutil
from pathlib import Path

import pytest

from adapters.model_files import (
    ENVIRONMENTS,
    MODELS,
    InvalidFileError,
    check_models,
    load_environment,
    load_model,
    model_names,
)
from lifecycle.errors import ConfigError
from lifecycle.spec import Environment


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(MODELS, tmp_path / "models")
    return tmp_path / "models"


def change(folder: Path, old: str, new: str, name: str = "flight_delay") -> None:
    path = folder / f"{name}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.requirement("RO.2")
def test_every_shipped_model_file_is_valid():
    specs, problems = check_models()
    assert problems == []
    assert [spec.name for spec in specs] == model_names() == ["employment", "flight_delay"]


def test_every_shipped_environment_is_valid():
    for path in ENVIRONMENTS.glob("*.yaml"):
        assert load_environment(path.stem).name == path.stem


def test_all_errors_come_at_once_each_with_file_line_key_and_what_is_accepted(folder):
    change(folder, "tier: secondary", "tier: third")
    change(folder, "freshness: 3d", "freshnes: 3d")
    change(folder, "min: 0.62", "min: 1.62")
    change(folder, "trials: 8", "trials: many")
    change(folder, "  team: Travel ML", "  teams: Travel ML")
    _, problems = check_models(folder)
    lines = (folder / "flight_delay.yaml").read_text().splitlines()
    found = {problem.key: problem for problem in problems}
    assert set(found) == {
        "tier",
        "quality.freshnes",
        "evaluation.gates.0",
        "training.trials",
        "owner.team",
        "owner.teams",
    }
    for key, word in [("tier", "third"), ("quality.freshnes", "freshnes"), ("evaluation.gates.0", "1.62")]:
        assert word in lines[found[key].line - 1]
    assert "'main' or 'secondary'" in found["tier"].message
    assert "did you mean 'freshness'?" in found["quality.freshnes"].message
    assert "between 0 and 1" in found["evaluation.gates.0"].message
    assert "is 'many'" in found["training.trials"].message
    assert found["owner.team"].message == "is missing; this key is required"
    assert str(found["tier"]).endswith(f"flight_delay.yaml:{found['tier'].line}: tier: {found['tier'].message}")


def test_errors_of_one_file_do_not_hide_the_others(folder):
    change(folder, "tier: secondary", "tier: third")
    change(folder, "tier: main", "tier: first", "employment")
    _, problems = check_models(folder)
    assert len({problem.path for problem in problems}) == 2


def test_a_mistyped_feature_key_names_the_keys_of_that_kind(folder):
    change(
        folder, "{name: distance, type: numeric, unit: mi, min: 1", "{name: distance, type: numeric, unit: mi, mini: 1"
    )
    _, problems = check_models(folder)
    assert [problem.key for problem in problems] == ["features.8.mini"]
    assert "did you mean 'min'?" in problems[0].message


@pytest.mark.parametrize("name", ["flight_dely", "flight_delays", "../flight_delay", ""])
def test_an_unknown_model_names_what_exists(name):
    with pytest.raises(ConfigError, match="accepted: employment, flight_delay"):
        load_model(name)


def test_the_nearest_name_is_offered():
    with pytest.raises(ConfigError, match="did you mean 'flight_delay'"):
        load_model("flight_dely")
    with pytest.raises(ConfigError, match="did you mean 'development'"):
        load_environment("developmnt")


def test_a_model_is_called_as_its_file(folder):
    (folder / "flight_delay.yaml").rename(folder / "flights.yaml")
    with pytest.raises(InvalidFileError, match="accepted: the file's own name, 'flights'"):
        load_model("flights", folder=folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [", "not YAML"),
        (b"a: 1\na: 2\n", "not YAML: found duplicate key"),
        (b"\xff\xfe", "not UTF-8: byte 0"),
        (b"- 1\n- 2\n", "accepted: a mapping"),
        (b"", "accepted: a mapping"),
        (b"a: " + b"x" * 1_000_001, "larger than 1,000,000 bytes"),
        (b"name: !!python/object/apply:os.system [ls]\n", "problem|unknown key|missing|not YAML"),
    ],
)
def test_what_is_no_model_file_is_an_answer_not_a_traceback(tmp_path, content, message):
    (tmp_path / "broken.yaml").write_bytes(content)
    with pytest.raises(InvalidFileError, match=message):
        load_model("broken", folder=tmp_path)


@pytest.mark.requirement("R4.4")
def test_an_environment_lays_its_differences_over_the_file():
    environment = Environment(name="small", overrides={"training.trials": 3, "rollout.hold": "5m"})
    spec = load_model("flight_delay", environment)
    assert (spec.training.trials, spec.rollout.hold) == (3, "5m")
    assert spec.training.split == load_model("flight_delay").training.split


def test_a_wrong_difference_is_an_error_of_that_key():
    with pytest.raises(InvalidFileError, match=r"training\.trials: is 0"):
        load_model("flight_delay", Environment(name="small", overrides={"training.trials": 0}))


@pytest.mark.requirement("R7.3")
@pytest.mark.parametrize("key", ["evaluation.gates", "evaluation.min_rows", "label.delay", "after_event"])
def test_no_environment_may_change_how_a_candidate_is_judged(tmp_path, key):
    (tmp_path / "lax.yaml").write_text(f"name: lax\noverrides:\n  {key}: []\n")
    with pytest.raises(InvalidFileError, match="may not differ between environments"):
        load_environment("lax", tmp_path)
