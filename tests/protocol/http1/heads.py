"""Heads of requests as bytes."""


def get(path: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join((b"GET %s HTTP/1.1" % path, b"Host: t", *lines, b"", b""))


def post(size: int, *lines: bytes) -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: t", b"Content-Length: %d" % size, *lines, b"", b""))
