"""A small HTTP proxy as many networks have one: CONNECT for https, and plain requests handed on. It notes what it was asked,
wants credentials if it is told to, and refuses, hangs or talks nonsense on demand."""

import base64
import contextlib
import socket
import threading


class Proxy:
    def __init__(self, user=None, password=None, tls=None):
        self.tls = tls
        self.wanted = user and "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        # What to do instead of the work: bytes to answer, or "hang", "hang up".
        self.instead = None
        # Method, target and headers of each request.
        self.heads = []
        # Names that only the proxy can look up.
        self.names = {}
        self.open = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in [self.listener, *self.open]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def asked(self, method):
        return [target for asked, target, _ in self.heads if asked == method]

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.open.append(connection)
                threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as held:
            connection = held.enter_context(connection)
            if self.tls:
                connection = held.enter_context(self.tls.wrap_socket(connection, server_side=True))
            reader = held.enter_context(connection.makefile("rb", 0))
            while self.request(connection, reader):
                pass

    def request(self, connection, reader):
        """Whether the connection goes on."""
        head = head_of(reader)
        if head is None:
            return False
        method, target, headers = head
        self.heads.append(head)
        if self.instead == "hang":
            return bool(reader.read(1))
        if self.instead == "hang up":
            return False
        if self.instead is not None:
            connection.sendall(self.instead)
            return False
        if self.wanted and headers.get("proxy-authorization") != self.wanted:
            connection.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
            )
            return False
        address = target if method == "CONNECT" else target.split("/")[2]
        host, port = address.rsplit(":", 1)
        try:
            vendor = socket.create_connection((self.names.get(host, host), int(port)), 5)
        except OSError:
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return False
        with vendor:
            self.open.append(vendor)
            if method == "CONNECT":
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=pump, args=(vendor, connection), daemon=True)
                back.start()
                pump(connection, vendor)
                back.join()
                return False
            body = b""
            while len(body) < int(headers.get("content-length", 0)):
                if not (more := reader.read(65536)):
                    return False
                body += more
            lines = [f"{method} /{target.split('/', 3)[3]} HTTP/1.1", "connection: close"]
            lines += [
                f"{name}: {value}" for name, value in headers.items() if not name.startswith(("proxy-", "connection"))
            ]
            vendor.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            pump(vendor, connection)
            return False


def head_of(reader):
    first = reader.readline().decode().split()
    if len(first) != 3:
        return None
    headers = {}
    while line := reader.readline().decode().strip():
        name, value = line.split(":", 1)
        headers[name.lower()] = value.strip()
    return first[0], first[1], headers


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
