"""Direct and indirect messaging: who waits, who notices, what is lost.

A service tells another one something in two ways. **Direct** messaging is a call, such as HTTP: the sender knows the
receiver's address, and waits for its answer. **Indirect** messaging has a **broker** in between: the sender hands it a
message, the receiver takes it out of a queue when it can, and neither has to know the other.

| the receiver is | a call | a message |
| --- | --- | --- |
| up | the answer says that it is done | the confirm says that the broker has it |
| slow | the sender waits, or gives up and does not know | the message waits, the sender does not |
| down | the sender notices at once, and must keep the view itself | the sender notices nothing, the queue keeps it |

You will send the same views both ways. Neither way is the better one. Who needs an answer calls: Flixtrail's pages call
the history API. Who only tells that something happened sends a message; and then the broker is what must be up.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import ClassVar

import urllib3
from kombu import Consumer, Message, Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson messaging --set auto_delete=true`: the queue now ends with its receiver. Which proof fails?
2. After the timeout, let the sender call again with the same view. What does the receiver have then? What would a view
   have to carry, so that the receiver can tell?
3. Publish ten views while the receiver is down. In which order do they come when it is back?
"""
BREAKS = ("auto_delete", True)

#: How long the sender waits for an answer.
PATIENCE_S = 1


class Receiver(BaseHTTPRequestHandler):
    """Takes views by HTTP, and does them."""

    done: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.done.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response_only(202)
        self.end_headers()


def call(server: HTTPServer, view: str) -> int | str:
    """What the sender learns: the status, or the error."""
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        return urllib3.request("POST", address, body=view, timeout=PATIENCE_S, retries=False).status
    except urllib3.exceptions.HTTPError as error:
        return type(error).__name__


def play(stage: Stage, *, auto_delete: bool = False) -> None:
    # With confirms, `publish` returns when the broker has the message.
    producer = Producer(stage.connect("sender", transport_options={"confirm_publish": True}), routing_key="history")
    connection, taken = stage.connect("receiver"), list[Message]()
    receiver = Consumer(connection, Queue("history", auto_delete=auto_delete), on_message=taken.append)
    Receiver.done.clear()
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        stage.say("The receiver is up. A call ends when it has done its work; a message when the broker has it.")
        Thread(target=server.handle_request, daemon=True).start()
        stage.moves("view 1", "sender", "receiver")
        stage.prove("call: the sender learns", call(server, "view 1"), 202)
        stage.prove("call: the receiver has", Receiver.done, ["view 1"])
        receiver.consume()
        producer.publish("view 1")
        stage.moves("view 1", "sender", "()", "[history]", "receiver")
        connection.drain_events(timeout=5)
        stage.prove("message: the receiver has", [message.body for message in taken], ["view 1"])
        taken.pop().ack()
        stage.say("The receiver is slow. The caller waits, and gives up; only then the receiver gets round to it.")
        stage.prove("call: the sender learns", call(server, "view 2"), "ReadTimeoutError")
        server.handle_request()
        stage.really("An unanswered call did not arrive.", "the receiver has", Receiver.done, ["view 1", "view 2"])
        producer.publish("view 2")
        unacked = stage.eventually(lambda: stage.unacked("history"), 1)
        stage.prove("message: the sender is done; views with the receiver, not acknowledged", unacked, 1)
        connection.drain_events(timeout=5)
        taken.pop().ack()
    stage.say("The receiver is down.")
    stage.prove("call: the sender learns", call(server, "view 3"), "NewConnectionError")
    receiver.cancel()
    producer.publish("view 3")
    stage.moves("view 3", "sender", "()", "[history]")
    stage.prove("message: views that wait in [history]", stage.ready("history"), 1)
    stage.really("A confirm comes from the receiver.", "confirmed, and receivers there", stage.consumers("history"), 0)
    stage.say("It is up again. The call's view is lost, unless its sender kept it; the message was kept.")
    stage.prove("call: the receiver has", Receiver.done, ["view 1", "view 2"])
    receiver.consume()
    connection.drain_events(timeout=5)
    stage.prove("message: the receiver gets", [message.body for message in taken], ["view 3"])
