"""`python -P .../aserver/zygote/__main__.py FD`: the program that the master starts for each generation.

It is run by its path, so that zygote and master are of the same aserver, wherever that is: an installation, a checkout,
an embedding program's own path. With -P nothing in the working directory can take its place.
"""

import gc
import sys
from pathlib import Path

# multiprocessing's spawn imports the main module again in the app's child processes, which must not become zygotes.
if __name__ == "__main__":
    # A collection during imports finds little, and the fork does not share the memory that it moves. Workers enable it.
    gc.disable()
    place = str(Path(__file__).resolve().parents[2])
    sys.path.insert(0, place)
    from aserver.zygote.main import main

    sys.path.remove(place)  # the package knows its own path now; the app's imports must not search ours
    main(int(sys.argv[1]))
