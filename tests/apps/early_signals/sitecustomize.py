"""Put first on PYTHONPATH: each process that the master execs gets what a terminal or supervisor sends to a group.

Python imports this module before anything of aserver runs there, so that no handler is in place yet.
"""

import os
import signal
import sys

PASSING = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

signals: tuple[signal.Signals, ...] = ()
if any("aserver.config.python_file" in word for word in sys.orig_argv):  # this child may end, with its master
    signals = PASSING
elif "_ASERVER_PREFLIGHT" in os.environ or any("zygote" in word for word in sys.orig_argv):
    signals = PASSING + ENDING
for signum in signals:
    os.kill(os.getpid(), signum)
