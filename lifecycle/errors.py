"""Errors a user can answer: what rule, what value, what is accepted; each kind with its own exit code."""

from __future__ import annotations

from collections.abc import Iterator


class ProDecksError(Exception):
    """Base of every error told to the user as one clear message instead of a traceback."""

    exit_code = 1


class ConfigError(ProDecksError):
    """A command, model file, stack file or policy that says something impossible."""

    exit_code = 2


class CandidateRejected(ProDecksError):
    """The candidate is registered but a gate failed."""

    exit_code = 3


class DataError(ProDecksError):
    """The data cannot be trained on: missing columns, empty window, failed expectations."""

    exit_code = 4


class UnavailableError(ProDecksError):
    """A part of the outside world does not answer: source, registry, ops store, disk."""

    exit_code = 5


class BusyError(ProDecksError):
    """The same work is already under way."""

    exit_code = 6


class UnheardError(ProDecksError):
    """A P0 alert reached nobody: every channel was tried to its end."""

    exit_code = 7


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was raised from or while handling."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = inner.__cause__ or inner.__context__


def was_interrupted(error: BaseException) -> bool:
    """Whether an error is an interruption, or what a framework made of one that met it in the middle of something."""
    return any(isinstance(inner, KeyboardInterrupt) for inner in causes(error))
