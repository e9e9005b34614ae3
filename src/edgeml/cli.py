"""The command line: parse, call one verb, render. No logic lives here."""


def main() -> None:
    """Entry point."""
