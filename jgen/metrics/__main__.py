"""`python -m jgen.metrics`: the commands are in jgen.app, which stands above this package."""


def main() -> None:
    """Runs one command."""
    from jgen.app import metrics_command

    metrics_command.main()


if __name__ == "__main__":
    main()
