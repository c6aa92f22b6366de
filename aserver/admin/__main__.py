"""`python -P .../aserver/admin/__main__.py FD`: the program that the master starts for its admin endpoint.

It is run by its path, as the zygote is, so that it is of the master's own aserver.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from aserver import standard_streams

    standard_streams.keep()
    from aserver.admin.main import main

    main(int(sys.argv[1]))
