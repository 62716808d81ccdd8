"""A session that speaks the protocol by hand, for the message that no driver sends by itself: FunctionCall, libpq's PQfn.
It names a function by its OID, and the bytes of its arguments are the caller's own."""

import socket
import struct


class FastPath:
    def __init__(self, cluster, dbname, user):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect(f"{cluster.directory}/.s.PGSQL.{cluster.port}")
        self.received = bytearray()
        options = b"".join(word.encode() + b"\0" for word in ("user", user, "database", dbname)) + b"\0"
        self.socket.sendall(struct.pack("!ii", 8 + len(options), 196608) + options)
        self.answer()

    def query(self, text):
        """The SQLSTATE that a statement ends with (an internal error's with its words); None: it did well."""
        body = text.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", 4 + len(body)) + body)
        return self.answer()

    def call(self, function, *arguments, binary=True):
        """The same of a call; an argument is bytes, or None."""
        return self.calls([(function, arguments)], binary)[0]

    def calls(self, calls, binary=True):
        """Many in one go."""
        self.socket.sendall(b"".join(message(function, arguments, binary) for function, arguments in calls))
        return [self.answer() for _ in calls]

    def answer(self):
        state = None
        while True:
            kind, body = self.message()
            if kind == b"E":
                fields = {field[:1]: field[1:].decode() for field in body.split(b"\0")}
                state = fields[b"C"] if fields[b"C"] != "XX000" else "XX000 " + fields[b"M"]
            elif kind == b"Z":
                return state

    def message(self):
        head = self.take(5)
        return head[:1], self.take(struct.unpack("!i", head[1:])[0] - 4)

    def take(self, count):
        while len(self.received) < count:
            received = self.socket.recv(1 << 20)
            if not received:
                raise ConnectionError("the server closed the session")
            self.received += received
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    def close(self):
        self.socket.close()


def message(function, arguments, binary):
    values = b"".join(
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value for value in arguments
    )
    body = struct.pack("!ihhh", function, 1, binary, len(arguments)) + values + struct.pack("!h", binary)
    return b"F" + struct.pack("!i", 4 + len(body)) + body
