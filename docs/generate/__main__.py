"""Write every drawn page, and say which ones changed."""

from __future__ import annotations

import sys

from docs.generate import DOCS, PAGES


def main() -> None:
    """Write the pages whose text differs."""
    for name, draw in PAGES.items():
        path, text = DOCS / name, draw()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.resolve().relative_to(DOCS.parent)} written\n")


if __name__ == "__main__":
    main()
