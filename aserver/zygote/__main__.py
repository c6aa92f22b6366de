"""`python -P .../aserver/zygote/__main__.py FD`: what the master execs for each generation.

Run by its path, so that the zygote is of the same aserver as its master wherever that was found (an installation, a
checkout, an embedding program's own path), and with -P, so that nothing in the working directory can be taken for it.
"""

import sys
from pathlib import Path

# multiprocessing's spawn imports the main module again in the app's child processes: those must not become zygotes.
if __name__ == "__main__":
    place = str(Path(__file__).resolve().parents[2])
    sys.path.insert(0, place)
    from aserver.zygote.main import main

    sys.path.remove(place)  # the package is found by its own path from now on; the app's imports are not to see ours
    main(int(sys.argv[1]))
