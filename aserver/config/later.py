"""Settings that have their names already and do nothing in this version: files and command lines may have them.

Pure. Each is accepted, and a warning says what the server does until it comes. A row leaves when its setting comes.
"""

from collections.abc import Mapping

#: a2wsgi's own number of threads, which the WSGI adapter leaves as it is.
WSGI_THREADS = 10

LATER: Mapping[str, str] = {
    "threads": f"does nothing yet: each worker runs WSGI requests in up to {WSGI_THREADS} threads",
    "backpressure": "does nothing yet: WSGI requests wait for a thread without a bound; limit_concurrency answers 503",
    "request_timeout": "does nothing yet: hang_timeout ends a worker whose event loop stands still",
    "statsd_host": "does nothing yet: no metrics are sent",
    "statsd_prefix": "does nothing yet: no metrics are sent",
}
