"""The lifecycle decisions: data in, decision and reasons out; no clock, no network, no framework."""
