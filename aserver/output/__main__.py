"""`python -P .../aserver/output/__main__.py FD BOARD TITLE`: the program that reads captured output.

The master starts it. FD is its channel to the master, BOARD the board, TITLE its name for `ps`. It is run by its path,
as the zygote is (zygote/__main__.py), so that it is of the master's aserver.
"""

import sys
from pathlib import Path

place = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, place)
from aserver.output.reader import main  # noqa: E402

sys.path.remove(place)
main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
