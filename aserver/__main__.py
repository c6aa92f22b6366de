"""`python -m aserver`: the command, as the console script `aserver` runs it."""

from aserver.command.main import main

if __name__ == "__main__":
    main()
