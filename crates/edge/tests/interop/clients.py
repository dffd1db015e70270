"""The conformance server against PyPI's python-socketio: by WebSocket, by long-polling, and upgraded.

usage: python clients.py http://localhost:PORT
"""

import asyncio
import sys

import socketio

URL = sys.argv[1]
passed = 0


def fact(name):
    global passed
    passed += 1
    print("ok ", name)


async def check(transports):
    by = "python, " + " → ".join(transports)
    client = socketio.AsyncClient(reconnection=False)
    heard = asyncio.Queue()

    @client.on("auth")
    async def auth(data):
        await heard.put(("auth", data))

    @client.on("message-back")
    async def message_back(*args):
        await heard.put(("message-back", args))

    @client.on("emit-with-ack")
    async def emit_with_ack(*args):
        await heard.put(("emit-with-ack", args))
        return "pong"

    async def hear():
        return await asyncio.wait_for(heard.get(), 5)

    await client.connect(URL, auth={"token": "7|AbC"}, transports=transports)
    assert await hear() == ("auth", {"token": "7|AbC"})
    fact(f"{by}: CONNECT carries the payload")
    # A handler takes exactly the arguments that were sent: nothing is added.
    await client.emit("message", {"a": "é🚲"})
    assert await hear() == ("message-back", ({"a": "é🚲"},))
    await client.emit("message", b"\x00\xff")
    assert await hear() == ("message-back", (b"\x00\xff",))
    fact(f"{by}: text and binary come back")
    assert await client.call("message-with-ack", {"b": [1, 2]}) == {"b": [1, 2]}
    assert await client.call("message-with-ack", b"\x07") == b"\x07"
    await client.emit("emit-with-ack", 5)
    assert await hear() == ("emit-with-ack", (5,))
    assert await hear() == ("emit-with-ack", ("pong",))
    fact(f"{by}: acks go both ways")
    await asyncio.sleep(1.2)
    assert client.connected
    fact(f"{by}: heartbeats keep it alive")
    await client.disconnect()


async def main():
    for transports in (["websocket"], ["polling"], ["polling", "websocket"]):
        await check(transports)


try:
    asyncio.run(main())
except BaseException:
    print(f"{passed} passed, 1 failed")
    raise
print(f"{passed} passed, 0 failed")
