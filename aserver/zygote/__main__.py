"""`python -P -m aserver.zygote FD`: what the master execs for each generation."""

import sys

from aserver.zygote.main import main

# multiprocessing's spawn imports the main module again in the app's child processes: those must not become zygotes.
if __name__ == "__main__":
    main(int(sys.argv[1]))
