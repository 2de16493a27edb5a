"""The one entry point: `python run.py --pipeline train`, and an operator's verbs as subcommands (RO.2, RO.4)."""

from cli.main import main

if __name__ == "__main__":
    main()
