"""Wiring only: which step feeds which."""
