"""`python -m jgen.data`: the commands are in jgen.app, which stands above this package."""


def main() -> None:
    """Runs one command."""
    from jgen.app import data_command

    data_command.main()


if __name__ == "__main__":
    main()
