"""A vendor for the soak, in a process of its own: it answers as Ideamart does, lets one send in a hundred hang and refuses
one in a hundred, and notes when each arrived, by the clock that all processes of the machine share. (tests/simulator knows
the protocol better, and no such times; it keeps whole requests, which would be what grows.)"""

import asyncio
import json
import multiprocessing
import socket
import time

LATENCY = 0.02


def fate(number):
    """What becomes of a send to this number, which counts up."""
    return {37: "hang", 73: "refuse"}.get(int(number[-8:]) % 100, "send")


class Vendor:
    """`arrivals`: a file with a line for each send that arrived: its key (the verification's id), and when, in ns."""

    def __init__(self, arrivals):
        self.arrivals = arrivals
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.process = multiprocessing.get_context("fork").Process(target=self.run, daemon=True)
        self.process.start()
        self.listener.close()

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        # Line by line: whoever reads it while the vendor lives finds all that arrived.
        with open(self.arrivals, "w", buffering=1) as self.file:
            server = await asyncio.start_server(self.talk, sock=self.listener)
            await server.serve_forever()

    async def talk(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
                answer = await self.answer(body)
                if answer is not None:
                    text = json.dumps({"version": "1.0", **answer}).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, body):
        if "otp" in body:
            await asyncio.sleep(LATENCY)
            if body["otp"] == "111111":
                return {"statusCode": "S1000", "statusDetail": "Success", "subscriberId": "tel:hu1"}
            return {"statusCode": "E1850", "statusDetail": "Invalid OTP"}
        self.file.write(f"{body['applicationHash']} {time.monotonic_ns()}\n")
        await asyncio.sleep(LATENCY)
        match fate(body["subscriberId"]):
            case "hang":
                return None
            case "refuse":
                return {"statusCode": "E1399", "statusDetail": "Not today"}
        reference = body["applicationHash"].replace("-", "")
        return {"statusCode": "S1000", "statusDetail": "Success", "referenceNo": reference}

    def stop(self):
        self.process.terminate()
        self.process.join()
