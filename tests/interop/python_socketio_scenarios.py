"""What a Python program does with python-socketio: connect, send, listen, be refused.

Run by python_socketio.test.mjs, which gives a JSON object as the one argument: `url`, `transport`, `text`, and
`people`, a fresh pair for each scenario. Prints one JSON line for each scenario: `name` and `problem` (or null).
"""

import json
import sys
import threading
import time
import traceback

import socketio

WORLD = json.loads(sys.argv[1])
TRANSPORTS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}
EVENTS = [
    "authenticated", "message_received", "message_sent", "message_delivered", "message_read",
    "user_typing", "user_presence", "conversation_updated", "unread_count", "error",
]


class Client:
    """A python-socketio client that keeps what it receives."""

    def __init__(self, user=None, auth="payload", reconnection=False):
        self.received = []
        self.changed = threading.Condition()
        self.refusal = None
        self.socket = socketio.Client(reconnection=reconnection)
        for event in EVENTS:
            # A handler of exactly one argument: a second one would be a TypeError here.
            self.socket.on(event, lambda data, event=event: self.keep(event, data))
        self.socket.on("connect_error", self.keep_refusal)
        token = user["token"] if user else None
        self.socket.connect(
            WORLD["url"],
            headers={"Authorization": f"Bearer {token}"} if auth == "header" else {},
            auth={"token": token} if auth == "payload" else None,
            transports=TRANSPORTS[WORLD["transport"]],
            wait_timeout=10,
        )

    def keep(self, event, data):
        with self.changed:
            self.received.append((event, data))
            self.changed.notify_all()

    def keep_refusal(self, data=None):
        self.refusal = data

    def all(self, event):
        return [data for name, data in self.received if name == event]

    def wait(self, event, count=1, seconds=10):
        with self.changed:
            arrived = self.changed.wait_for(lambda: len(self.all(event)) >= count, seconds)
        assert arrived, f"{len(self.all(event))} of {count} {event} arrived"
        return self.all(event)[count - 1]

    def call(self, event, data):
        ack = self.socket.call(event, data, timeout=10)
        assert isinstance(ack, dict), f"the ack is one object, not {ack!r}"
        return ack

    def close(self):
        self.socket.disconnect()


def connects_with_the_token_in_the_payload_and_in_the_header(pair):
    for auth in ["payload", "header"]:
        client = Client(pair["renter"], auth)
        said = client.wait("authenticated")
        assert said["user_id"] == pair["renter"]["id"], said
        client.close()


def authenticates_later(pair):
    client = Client(auth="nowhere")
    ack = client.call("authenticate", {"token": pair["renter"]["token"]})
    assert ack["success"] is True, ack
    client.wait("authenticated")
    client.close()


def is_told_why_it_is_refused(pair):
    refusals = []

    class Refused(Client):
        def keep_refusal(self, data=None):
            refusals.append(data)

    try:
        Refused({"token": "1|wrong"})
    except socketio.exceptions.ConnectionError:
        pass
    else:
        raise AssertionError("a wrong token was let in")
    assert refusals and refusals[0]["data"]["code"] == "UNAUTHENTICATED", refusals
    assert isinstance(refusals[0]["message"], str)


def sends_and_receives(pair):
    renter, owner = Client(pair["renter"]), Client(pair["owner"])
    ack = renter.call("send_message", {
        "receiver_id": pair["owner"]["id"], "product_id": pair["product_id"], "content": WORLD["text"],
        "client_message_id": "from-python",
    })
    assert ack["success"] is True, ack
    message = ack["data"]
    assert message["content"] == WORLD["text"] and message["seq"] == 1
    for client in [renter, owner]:
        got = client.wait("message_received")
        assert got["message"]["id"] == message["id"] and got["conversation_id"] == message["conversation_id"]
        assert client.wait("message_delivered")["user_id"] == pair["owner"]["id"]
    assert renter.wait("message_sent")["client_message_id"] == "from-python"
    assert owner.wait("unread_count") == {"unread_count": 1}

    read = owner.call("mark_read", {"conversation_id": message["conversation_id"], "message_ids": [message["id"]]})
    assert read["success"] is True, read
    assert renter.wait("message_read")["message_ids"] == [message["id"]]

    renter.socket.emit("typing", {"conversation_id": message["conversation_id"], "is_typing": True})
    assert owner.wait("user_typing")["is_typing"] is True
    assert not owner.all("message_sent") and not renter.all("user_typing")
    renter.close()
    owner.close()


def keeps_the_order_of_a_hundred_sends(pair):
    renter, owner = Client(pair["renter"]), Client(pair["owner"])
    first = renter.call("send_message", {"receiver_id": pair["owner"]["id"], "content": WORLD["text"]})["data"]
    acks, all_acked = [], threading.Event()

    def keep_ack(ack):
        acks.append(ack)
        if len(acks) == 100:
            all_acked.set()

    for number in range(100):
        renter.socket.emit(
            "send_message",
            {"conversation_id": first["conversation_id"], "content": f"{WORLD['text']} {number}"},
            callback=keep_ack,
        )
    assert all_acked.wait(20), f"{len(acks)} of 100 acks came"
    assert all(ack["success"] for ack in acks)
    owner.wait("message_received", 101, 20)
    seqs = [data["message"]["seq"] for data in owner.all("message_received")]
    assert seqs == list(range(1, 102)), seqs
    contents = [data["message"]["content"] for data in owner.all("message_received")][1:]
    assert contents == [f"{WORLD['text']} {number}" for number in range(100)]
    renter.close()
    owner.close()


def is_answered_when_it_errs(pair):
    client = Client(pair["renter"])
    for event, data in [("no_such_event", {}), ("send_message", {"content": ""}), ("join_conversation", {"conversation_id": 999999999})]:
        ack = client.call(event, data)
        assert ack["success"] is False and ack["error"]["code"] and ack["error"]["retryable"] is False, ack
    client.wait("error", 3)
    assert client.call("presence_update", {"status": "online"})["success"] is True
    client.close()


def carries_text_of_every_kind(pair):
    renter, owner = Client(pair["renter"]), Client(pair["owner"])
    text = f"{WORLD['text']} 👩‍👩‍👧 Straße 日本 \"quoted\" \\ <3"
    renter.call("send_message", {"receiver_id": pair["owner"]["id"], "content": text})
    assert owner.wait("message_received")["message"]["content"] == text
    long = WORLD["text"] + "é" * 4_900
    renter.call("send_message", {"receiver_id": pair["owner"]["id"], "content": long})
    assert owner.wait("message_received", 2)["message"]["content"] == long
    renter.close()
    owner.close()


def stays_through_a_heartbeat_of_its_own(pair):
    client = Client(pair["renter"])
    client.wait("authenticated")
    # The server pings every 25 seconds; a client that it cannot hear would be gone soon after 45.
    time.sleep(27)
    assert client.call("presence_update", {"status": "online"})["success"] is True
    client.close()


SCENARIOS = [
    connects_with_the_token_in_the_payload_and_in_the_header,
    authenticates_later,
    is_told_why_it_is_refused,
    sends_and_receives,
    keeps_the_order_of_a_hundred_sends,
    is_answered_when_it_errs,
    carries_text_of_every_kind,
    stays_through_a_heartbeat_of_its_own,
]

for scenario, pair in zip(SCENARIOS, WORLD["people"]):
    problem = None
    try:
        scenario(pair)
    except Exception:  # Any problem is this scenario's result.
        problem = traceback.format_exc()
    print(json.dumps({"name": scenario.__name__.replace("_", " "), "problem": problem}), flush=True)
