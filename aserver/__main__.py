"""`python -m aserver`: the command, as the console script `aserver` runs it."""

from aserver.command.cli import main

if __name__ == "__main__":
    main()
