"""What this application adds to the library."""


def register() -> None:
    """Add it."""
