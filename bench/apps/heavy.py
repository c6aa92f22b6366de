"""A FastAPI app that makes 100 MB of small Python objects when it is imported. Preloading can share them.

`BENCH_DATA_MB` changes the size (for trying the harness out).
"""

import gc
import os

from fastapi import FastAPI

MEGABYTES = int(os.environ.get("BENCH_DATA_MB", "100"))
# A record of this shape takes about 480 bytes on CPython 3.11 to 3.13 (dict, list, two strings, float).
DATA = {
    number: {"name": f"record number {number:08d}", "values": [number, number + 1], "score": number / 7}
    for number in range(MEGABYTES * 2**20 // 480)
}

app = FastAPI()


@app.get("/record/{number}")
async def record(number: int) -> dict[str, object]:
    return {"pid": os.getpid(), "record": DATA[number % len(DATA)]}


@app.get("/collect")
async def collect() -> dict[str, int]:
    """Run a full collection, as any worker does that lives long enough."""
    gc.collect()
    return {"pid": os.getpid()}
