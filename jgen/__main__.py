"""`python -m jgen` is the command `jgen`."""

from jgen.app.console import main

if __name__ == "__main__":
    main()
