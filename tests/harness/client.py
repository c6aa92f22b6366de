"""A raw HTTP/1.1 client: sends exactly the bytes it is given and reads one response at a time.

Deliberately no library: tests send what libraries refuse to send, and look at the bytes that come back.
"""

import socket
import ssl
from dataclasses import dataclass, field
from typing import Self

from tests.harness.waiting import PATIENCE

#: ("127.0.0.1", port), ("::1", port) or the path of a unix socket ("\0name" if abstract).
Where = tuple[str, int] | str


@dataclass(frozen=True, slots=True)
class RawResponse:
    """One response: header names as they were sent, the body without its framing."""

    status: int
    reason: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    head: bytes
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: "list[RawResponse]" = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The value of header `name`, None if absent; raises AssertionError if it stands there twice."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) < 2, f"{name} is there {len(found)} times in {self.head!r}"
        return found[0] if found else None

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()


class ClosedEarlyError(AssertionError):
    """The server closed before the response was complete; `got` is what had come until then."""

    def __init__(self, where: str, got: bytes) -> None:
        super().__init__(f"connection closed {where}, after {got!r}")
        self.got = got


class RawConnection:
    """One connection. Everything waits at most `timeout` seconds (TimeoutError)."""

    def __init__(self, where: Where, *, timeout: float = PATIENCE, tls: ssl.SSLContext | None = None) -> None:
        if isinstance(where, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout)
            try:
                sock.connect(where)
            except OSError:
                sock.close()
                raise
        else:
            sock = socket.create_connection(where, timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock if tls is None else tls.wrap_socket(sock, server_hostname="localhost")
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close; may be called twice."""
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send these bytes, all of them."""
        self.sock.sendall(data)

    def request(
        self, path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
    ) -> RawResponse:
        """Send one well-formed request and read its response."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        chunked = any(name.lower() == "transfer-encoding" for name in headers or {})
        if body and not chunked:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)
        return self.read_response(head_only=method == "HEAD")

    def read_response(self, *, head_only: bool = False, keep_interim: bool = True) -> RawResponse:
        """Read one response; 1xx responses before it are collected in `.interim`.

        With `keep_interim=False` a 1xx response is returned by itself. Raises ClosedEarlyError, TimeoutError, or
        AssertionError where the framing is wrong.
        """
        interim: list[RawResponse] = []
        while True:
            head = self._read_until(b"\r\n\r\n", "before the end of the response head")
            version, status, reason, headers = parse_head(head)
            if not 100 <= status < 200 or status == 101:
                break
            response = RawResponse(status, reason, version, headers, b"", head)
            if not keep_interim:
                return response
            interim.append(response)
        fields = {name.lower(): value for name, value in headers}
        trailers: list[tuple[str, str]] = []
        if head_only or status in (101, 204, 304):
            body = b""
        elif fields.get("transfer-encoding", "").lower() == "chunked":
            body, trailers = self._read_chunks()
        elif "content-length" in fields:
            body = self._read_exactly(int(fields["content-length"]), "in the response body")
        else:
            body = self.read_to_end()
        return RawResponse(status, reason, version, headers, body, head, trailers, interim)

    def read_head(self) -> RawResponse:
        """Read a response's head only; what follows is left for read_some."""
        head = self._read_until(b"\r\n\r\n", "before the end of the response head")
        version, status, reason, headers = parse_head(head)
        return RawResponse(status, reason, version, headers, b"", head)

    def read_some(self) -> bytes:
        """At least one byte, or b"" at the end of the stream."""
        if not self._buffer:
            return self.sock.recv(65536)
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def read_to_end(self) -> bytes:
        """All that comes until the server closes."""
        while data := self.sock.recv(65536):
            self._buffer += data
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def expect_close(self) -> None:
        """Raise AssertionError unless the server closes without sending anything more (a reset counts as closed)."""
        try:
            data = self.read_some()
        except ConnectionResetError:
            return
        assert data == b"", f"expected the connection to be closed, got {data!r}"

    def _fill(self, where: str) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise ClosedEarlyError(where, bytes(self._buffer))
        self._buffer += data

    def _read_until(self, mark: bytes, where: str) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            self._fill(where)
        return self._take(end + len(mark))

    def _read_exactly(self, count: int, where: str) -> bytes:
        while len(self._buffer) < count:
            self._fill(where)
        return self._take(count)

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _read_chunks(self) -> tuple[bytes, list[tuple[str, str]]]:
        body = bytearray()
        while size := int(self._read_until(b"\r\n", "in a chunk size").split(b";")[0], 16):
            body += self._read_exactly(size, "in a chunk")
            assert self._read_exactly(2, "after a chunk") == b"\r\n"
        trailers: list[tuple[str, str]] = []
        while (line := self._read_until(b"\r\n", "in the trailers")) != b"\r\n":
            trailers.append(_field(line[:-2]))
        return bytes(body), trailers


def parse_head(head: bytes) -> tuple[str, int, str, list[tuple[str, str]]]:
    """Version, status, reason and header fields of a response head."""
    status_line, *lines = head[:-4].split(b"\r\n")
    version, status, reason = (*status_line.split(b" ", 2), b"")[:3]
    assert version.startswith(b"HTTP/"), f"not a response: {head!r}"
    return version.decode(), int(status), reason.decode("latin-1"), [_field(line) for line in lines]


def _field(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    assert colon, f"not a header field: {line!r}"
    assert name == name.strip(), f"whitespace around the field name: {line!r}"
    return name.decode("latin-1"), value.strip().decode("latin-1")


def fetch(
    where: Where, path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
) -> RawResponse:
    """One request on a connection of its own."""
    with RawConnection(where) as connection:
        return connection.request(path, method=method, headers={"Connection": "close"} | (headers or {}), body=body)
