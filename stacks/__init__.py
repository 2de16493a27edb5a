"""Where pipelines run: one YAML file for each stack, and the code that applies one."""
