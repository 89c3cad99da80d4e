"""The Lambda Runtime API, over one connection.

An answer and the request for the next event are written together. http.client is not used, because its parser of headers
alone would take longer than many a handler.
"""

import base64
import os
import socket
import time

ROOT = "/2018-06-01/runtime"
FIXED = "Host: runtime\r\nUser-Agent: lull-python\r\n"
NEXT = f"GET {ROOT}/invocation/next HTTP/1.1\r\n{FIXED}\r\n".encode()
MAX_HEAD = 1 << 20  # the client context is a header, and can be large
ATTEMPTS = 50  # the Runtime API is on this machine: if it is away for 5 s, it does not come back
PAUSE = 0.1


class Lost(Exception):
    """The connection ended before the answer."""


def answer(request_id, body, content_type):
    return _post(f"/invocation/{request_id}/response", f"Content-Type: {content_type}\r\n", body)


def failure(request_id, error_type, body):
    return _post(f"/invocation/{request_id}/error", _error_headers(error_type), body)


def init_failure(error_type, body):
    return _post("/init/error", _error_headers(error_type), body)


def _error_headers(error_type):
    return f"Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: {printable(error_type)}\r\n"


def _post(path, headers, body):
    return f"POST {ROOT}{path} HTTP/1.1\r\n{FIXED}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def stream_head(request_id, content_type):
    return (
        f"POST {ROOT}/invocation/{request_id}/response HTTP/1.1\r\n{FIXED}"
        "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n"
        "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n"
        f"Content-Type: {content_type}\r\n\r\n"
    ).encode()


def stream_failure(error_type, body):
    encoded = base64.b64encode(body).decode()
    return f"0\r\nLambda-Runtime-Function-Error-Type: {printable(error_type)}\r\nLambda-Runtime-Function-Error-Body: {encoded}\r\n\r\n".encode()


def printable(text):
    """Makes text fit for a header, which it must not end."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


class Connection:
    """One connection, for one thread. It is made anew when it is lost."""

    def __init__(self):
        self.socket = None
        self.buffer = b""

    def call(self, *requests):
        """Sends requests in one piece and returns the answer to the last: (status, headers, body)."""
        for attempt in (1, 2):
            try:
                self.write(b"".join(requests))
                for _ in requests:
                    response = self._read()
                return response
            except Lost:
                # The Runtime API refuses a second answer to an invocation, so that it does no harm to say it again.
                self.close()
                if attempt == 2:
                    raise

    def write(self, data):
        try:
            if self.socket is None:
                self.socket = _dial()
                self.buffer = b""
            self.socket.sendall(data)
        except OSError as error:
            raise Lost(f"the Runtime API cannot be reached: {error}") from error

    def finish(self, data):
        """Ends a request that was written piece by piece, and waits for its answer."""
        self.write(data)
        return self._read()

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _read(self):
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > MAX_HEAD:
                raise Lost("the head of a response is too long")
            self._fill()
        lines = self.buffer[:end].decode("utf-8", "replace").split("\r\n")
        self.buffer = self.buffer[end + 4 :]
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._read_chunks()
        else:
            body = self._take(int(headers.get("content-length", "0")))
        return int(lines[0].split(" ")[1]), headers, body

    def _read_chunks(self):
        chunks = []
        while True:
            size = int(self._line().split(b";")[0], 16)
            if size == 0:
                break
            chunks.append(self._take(size + 2)[:-2])
        while self._line():
            pass  # trailers
        return b"".join(chunks)

    def _line(self):
        while (end := self.buffer.find(b"\r\n")) < 0:
            self._fill()
        line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        return line

    def _take(self, size):
        if len(self.buffer) < size:
            pieces, have = [self.buffer], len(self.buffer)
            while have < size:
                self.buffer = b""
                self._fill()
                pieces.append(self.buffer)
                have += len(self.buffer)
            self.buffer = b"".join(pieces)
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def _fill(self):
        try:
            data = self.socket.recv(1 << 16)
        except OSError as error:
            raise Lost(f"the connection to the Runtime API was lost: {error}") from error
        if not data:
            raise Lost("the Runtime API closed the connection")
        self.buffer += data


def _dial():
    for attempt in range(1, ATTEMPTS + 1):
        try:
            path = os.environ.get("LULL_RUNTIME_SOCKET")
            if path:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.connect(path)
                return connection
            host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].rpartition(":")
            connection = socket.create_connection((host.strip("[]"), int(port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except OSError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE)
