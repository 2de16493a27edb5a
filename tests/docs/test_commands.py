"""Documents name exactly the commands that exist, with options they have."""

import re
import shlex

import pytest

from adapters.model_files import model_names
from cli.main import PIPELINES
from docs.generate import DOCS
from docs.generate.commands import EXIT_CODES, commands
from lifecycle import errors
from stacks.stack_file import stack_names

pytestmark = pytest.mark.requirement("RO.4", "R13.3")

ROOT = DOCS.parent
COMMANDS = dict(commands())
# A line or an inline code span; a comment behind it is not part of it.
WRITTEN = re.compile(r"python run\.py([^\n`#;|&]*)")
# Written here as what may stand for a value.
VALUES = {"--pipeline": PIPELINES, "--model": (*model_names(), "all"), "--stack": stack_names()}


def found():
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        for arguments in WRITTEN.findall(path.read_text(encoding="utf-8")):
            yield pytest.param(arguments.strip(), id=f"{path.relative_to(ROOT)}: {arguments.strip() or 'alone'}")


def resolved(words):
    """Longest verb that the words start with, and the rest."""
    for length in (2, 1):
        verb = " ".join(words[:length])
        if len(words) >= length and verb in COMMANDS:
            return verb, words[length:]
    return "", words


@pytest.mark.parametrize("written", found())
def test_a_command_in_a_document_exists(written):
    verb, rest = resolved(shlex.split(written))
    if not verb:
        assert not rest or rest[0].startswith("-"), f"no verb {rest[0]!r}; accepted: {', '.join(COMMANDS)}"
    options = {name: one for one in COMMANDS[verb].params for name in (*one.opts, *one.secondary_opts)}
    options["--help"] = None
    words = iter(rest)
    for word in words:
        if word.startswith("-"):
            assert word in options, f"{verb or 'run.py'} has no {word}; accepted: {', '.join(options)}"
            if options[word] is not None and not options[word].is_flag:
                value = next(words, "")
                assert value, f"{word} lacks its value"
                if word in VALUES and not value.isupper():
                    assert value in VALUES[word]


def test_every_verb_is_on_the_page_of_commands():
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert [verb for verb in COMMANDS if f"## `python run.py {verb}".rstrip() not in text] == []


def test_the_readme_starts_with_the_command_that_trains():
    assert "uv run python run.py --pipeline train" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_kind_of_error_has_its_own_exit_code():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert set(codes) <= set(EXIT_CODES)
    assert 0 not in codes
