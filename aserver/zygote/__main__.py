"""`python -P .../aserver/zygote/__main__.py FD`: the program that the master starts for each generation.

It is run by its path, so that zygote and master are of the same aserver, wherever that is: an installation, a checkout,
an embedding program's own path. With -P nothing in the working directory can take its place.
"""

import gc
import sys
from pathlib import Path

#: Objects that workers allocate, less those they have freed, before the collector looks at them.
YOUNG = 10_000

# multiprocessing's spawn imports the main module again in the app's child processes, which must not become zygotes.
if __name__ == "__main__":
    # A collection during imports finds little, and the fork does not share the memory that it moves. Workers enable it.
    gc.disable()
    # Once in so many objects, not in 700: the requests under way at once have more, and none of them is garbage. Before
    # the application is loaded, which may set its own. A full collection is due about as often as with Python's.
    if 0 < gc.get_threshold()[0] < YOUNG:
        gc.set_threshold(YOUNG, 3, 3)
    place = str(Path(__file__).resolve().parents[2])
    sys.path.insert(0, place)
    from aserver import standard_streams

    standard_streams.keep()  # before anything is opened: in an embedding program they may be closed
    from aserver.zygote.main import main

    sys.path.remove(place)  # the package knows its own path now; the app's imports must not search ours
    main(int(sys.argv[1]))
