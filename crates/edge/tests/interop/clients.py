"""The conformance server against PyPI's python-socketio: by WebSocket, by long-polling, and upgraded.

usage: python clients.py http://localhost:PORT
"""

import queue
import sys
import time

import socketio

URL = sys.argv[1]
passed = 0


def fact(name):
    global passed
    passed += 1
    print("ok ", name)


def check(transports):
    by = "python, " + " → ".join(transports)
    client = socketio.Client(reconnection=False)
    heard = queue.Queue()

    @client.on("auth")
    def auth(data):
        heard.put(("auth", data))

    @client.on("message-back")
    def message_back(*args):
        heard.put(("message-back", args))

    @client.on("emit-with-ack")
    def emit_with_ack(*args):
        heard.put(("emit-with-ack", args))
        return "pong"

    def hear():
        return heard.get(timeout=5)

    client.connect(URL, auth={"token": "7|AbC"}, transports=transports)
    assert hear() == ("auth", {"token": "7|AbC"})
    fact(f"{by}: CONNECT carries the payload")
    # A handler takes exactly the arguments that were sent: nothing is added.
    client.emit("message", {"a": "é🚲"})
    assert hear() == ("message-back", ({"a": "é🚲"},))
    client.emit("message", b"\x00\xff")
    assert hear() == ("message-back", (b"\x00\xff",))
    fact(f"{by}: text and binary come back")
    assert client.call("message-with-ack", {"b": [1, 2]}) == {"b": [1, 2]}
    assert client.call("message-with-ack", b"\x07") == b"\x07"
    client.emit("emit-with-ack", 5)
    assert hear() == ("emit-with-ack", (5,))
    assert hear() == ("emit-with-ack", ("pong",))
    fact(f"{by}: acks go both ways")
    time.sleep(1.2)
    assert client.connected
    fact(f"{by}: heartbeats keep it alive")
    client.disconnect()


def main():
    for transports in (["websocket"], ["polling"], ["polling", "websocket"]):
        check(transports)


try:
    main()
except BaseException:
    print(f"{passed} passed, 1 failed")
    raise
print(f"{passed} passed, 0 failed")
