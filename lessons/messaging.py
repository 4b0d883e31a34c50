"""Direct and indirect messaging: who waits, who notices, what is lost.

A service can tell another service something in two ways. **Direct** messaging is a call, such as HTTP. The sender knows
the receiver's address, and waits for its answer. **Indirect** messaging uses a **broker** in between. The sender hands
a message to the broker, and the receiver takes it from a queue when it can. Neither has to know the other.

| the receiver is | a call | a message |
| --- | --- | --- |
| up | the answer says that the work is done | the confirm says that the broker has the message |
| slow | the sender waits, or gives up and does not know | the message waits, the sender does not |
| down | the sender notices at once, and must keep the event itself | the sender does not notice, the queue keeps it |

What a message says is one of three things:

| message | example | the sender expects |
| --- | --- | --- |
| **command** | "store this view" | that one receiver does it |
| **query** | "what has alice watched?" | an answer |
| **event** | "alice started clip-1" | nothing: it has happened, and any service may want to know |

In this lesson you send the same view events both ways. Neither way is better. Use a call if you need an answer:
Flixtrail's pages call the history API with a query. Use a message if you only tell what happened: Flixtrail's view
events. Then the broker has to be up.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import ClassVar

import urllib3
from kombu import Consumer, Message, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson messaging --set auto_delete=true`: RabbitMQ deletes the queue when its receiver leaves.
   Which proof fails?
2. After the timeout, let the sender call again with the same view event. What does the receiver have then? What would a
   view event have to contain, so that the receiver can tell?
3. Publish ten view events while the receiver is down. In which order do they arrive when it is back?
"""
BREAKS = ("auto_delete", True)
WHY = {"auto_delete": "An auto-delete queue is deleted when its last consumer leaves, so nothing keeps view 3."}

#: Seconds that the sender waits for an answer.
TIMEOUT_S = 1


class Receiver(BaseHTTPRequestHandler):
    """Receives view events over HTTP, and notes them."""

    done: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.done.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response_only(202)
        self.end_headers()


def call(server: HTTPServer, view: str) -> int | str:
    """Return what the sender learns: the status, or the error."""
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        return urllib3.request("POST", address, body=view, timeout=TIMEOUT_S, retries=False).status
    except urllib3.exceptions.HTTPError as error:
        return type(error).__name__


def play(stage: Stage, *, auto_delete: bool = False) -> None:
    # With confirms, `publish` returns when the broker has the message.
    producer = Producer(stage.connect("sender", transport_options={"confirm_publish": True}), routing_key="history")
    connection, received = stage.connect("receiver"), list[Message]()
    receiver = Consumer(connection, Queue("history", auto_delete=auto_delete), on_message=received.append)
    Receiver.done.clear()
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        stage.say("The receiver is up.")
        Thread(target=server.handle_request, daemon=True).start()
        stage.moves("view 1", "sender", "receiver")
        stage.prove("The call was answered with 202: the work is done.", call(server, "view 1"), 202)
        stage.prove("By the call, the receiver has view 1.", Receiver.done, ["view 1"])
        receiver.consume()
        producer.publish("view 1")
        stage.moves("view 1", "sender", "()", "[history]", "receiver")
        connection.drain_events(timeout=5)
        stage.prove("By the message, the receiver has view 1.", [message.body for message in received], ["view 1"])
        received.pop().ack()

        stage.say("The receiver is slow. The caller waits one second and gives up. Then the receiver does the work.")
        stage.prove("The call failed with a timeout.", call(server, "view 2"), "ReadTimeoutError")
        server.handle_request()
        stage.really(
            "A call without an answer did not arrive.",
            "By the calls, the receiver has view 1 and view 2.",
            Receiver.done,
            ["view 1", "view 2"],
        )
        producer.publish("view 2")
        unacked = stage.eventually(lambda: stage.unacked("history"), 1)
        stage.prove("The sender of the message is done, and the receiver has not acknowledged it yet.", unacked, 1)
        connection.drain_events(timeout=5)
        received.pop().ack()

    stage.say("The receiver is down.")
    stage.prove("The call failed at once: nobody listens.", call(server, "view 3"), "NewConnectionError")
    receiver.cancel()
    producer.publish("view 3")
    stage.moves("view 3", "sender", "()", "[history]")
    stage.prove("The message waits in [history].", stage.ready("history"), 1)
    if stage.ready("history") is None:
        return  # the queue is gone: there is nothing more to show
    stage.really(
        "A confirm comes from the receiver.",
        "The broker confirmed view 3 while [history] had no consumer.",
        stage.consumers("history"),
        0,
    )

    stage.say("The receiver is up again.")
    stage.prove(
        "By calls it still has view 1 and view 2 only: view 3 is lost, unless the sender kept it.",
        Receiver.done,
        ["view 1", "view 2"],
    )
    receiver.consume()
    connection.drain_events(timeout=5)
    stage.prove("By the message it gets view 3: the queue kept it.", [message.body for message in received], ["view 3"])
