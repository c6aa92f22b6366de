"""Scenarios about sending files.

Runs in the harness process.
"""

from bench.scenarios.load import Load

FILES = (
    Load(
        name="pathsend",
        title="A file of 100 MB, by its name (http.response.pathsend) or read by the application",
        app="files:app",
        body_size=100 << 20,
        connections=4,
        env={"ASERVER_PATHSEND": "on"},
    ),
)
