"""One step a file: gather, decide (call lifecycle), apply."""
