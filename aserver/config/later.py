"""Settings that have their names already and do nothing in this version: files and command lines may have them.

Pure. Each is accepted, and a warning says how the server behaves until it comes. A row leaves when its setting comes.
"""

from collections.abc import Mapping

LATER: Mapping[str, str] = {
    "statsd_host": "does nothing yet: no metrics are sent",
    "statsd_prefix": "does nothing yet: no metrics are sent",
}
