"""Settings of the C library's allocator, so that it keeps memory that request bodies have left.

Runs in the zygote before anything is loaded; the workers inherit it by the fork. It must never override settings of the
operator.
"""

import ctypes
from collections.abc import Mapping

# malloc.h of glibc, mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

#: Bytes of free memory at the end of the heap that are kept and not returned to the kernel, and the size from which a
#: block is mapped on its own. The default is 128 KB for both: a body of 64 KB takes three such blocks, and the kernel
#: took the pages back and cleared new pages at every request (a third of its CPU time). glibc itself goes up to 64 and
#: 32 MB where large blocks are freed often, so a busy worker has this much memory anyway.
TRIM_THRESHOLD = 4 * 2**20
MMAP_THRESHOLD = 2**20


def keep_freed_memory(environ: Mapping[str, str]) -> None:
    """Set glibc's thresholds, unless the environment tunes malloc. Does nothing where there is no mallopt(3)."""
    if "GLIBC_TUNABLES" in environ or any(name.startswith("MALLOC_") for name in environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # neither musl nor macOS has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
