"""``longtail`` and ``python -m longtail``: the command line, or what to install for it."""

from __future__ import annotations


def main() -> None:
    """Run the command line; where its libraries are not installed, say so in one line."""
    try:
        from longtail.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "longtail").startswith("longtail"):
            raise
        raise SystemExit(
            f"longtail: the command line needs {error.name}; pip install 'longtail[cli]'"
        ) from None
    run()


if __name__ == "__main__":
    main()
