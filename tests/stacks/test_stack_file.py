import pytest

from lifecycle.errors import ConfigError
from stacks.stack_file import FOLDER, load_stack, stack_names

LOCAL = (FOLDER / "local.yaml").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PRODECKS_VAR", "/somewhere/var")
    (tmp_path / "local.yaml").write_text(LOCAL)
    return tmp_path


@pytest.mark.requirement("RO.3", "RO.4")
def test_every_shipped_stack_loads_with_its_places_filled(monkeypatch):
    monkeypatch.setenv("PRODECKS_VAR", "/somewhere/var")
    for name in stack_names():
        assert load_stack(name).name == name
    local = load_stack("local")
    assert local.components["artifact_store"].configuration["path"] == "/somewhere/var/artifacts"
    assert local.services["PRODECKS_OPS_URL"] == "sqlite:////somewhere/var/ops.db"


def test_an_unknown_stack_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown stack 'locl'; did you mean 'local'"):
        load_stack("locl")


def test_a_variable_that_is_not_set_is_named(folder, monkeypatch):
    monkeypatch.delenv("PRODECKS_VAR")
    with pytest.raises(ConfigError, match="needs the environment variable PRODECKS_VAR, which is not set"):
        load_stack("local", folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: local", "name: laptop", "the file's own name, 'local'"),
        ("  orchestrator:\n    flavor: local\n", "", "components lacks orchestrator"),
        ("PRODECKS_OPS_URL", "PRODECKS_OP_URL", "services.PRODECKS_OP_URL"),
        ("environment: development", "enviroment: development", "did you mean 'environment'"),
    ],
)
def test_a_wrong_stack_file_says_what_is_accepted(folder, old, new, message):
    (folder / "local.yaml").write_text(LOCAL.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        load_stack("local", folder)
