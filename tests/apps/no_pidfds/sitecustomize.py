"""Put first on PYTHONPATH: the processes of a server under test then believe that they are not on Linux."""

import aserver.unix

aserver.unix.LINUX = False
