"""Hello: two small programs in two terminals.

A sender puts a message into a queue of **RabbitMQ**, the **broker**. A receiver takes it out. The two programs never
talk to each other: they only know the broker and the name of the queue.

Try it yourself before you play the lesson. In a first terminal, start a RabbitMQ that runs until you press Ctrl-C:

```
.venv/bin/flixtrail lesson --broker
```

It prints two commands. Paste the first one, the receiver, into a second terminal. Paste the other one, the sender, into
a third terminal, as often as you like. Then stop the receiver with Ctrl-C, send again, and start the receiver again.
What does it print?

The lesson does the same, and asks RabbitMQ after each step how many messages wait in the queue.
"""

from __future__ import annotations

from select import select
from subprocess import Popen

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson hello --set queue=goodbye`: the receiver reads another queue. Where is the message now?
2. Start two receivers in two terminals, and send four messages. Which receiver gets which message?
3. Send three messages while no receiver runs, and then start a receiver. In which order does it print them?
"""
BREAKS = ("queue", "goodbye")
WHY = {"queue": "The sender puts its message into [hello], and the receiver reads another queue."}
PROGRAMS = ("hello_send", "hello_receive")


def play(stage: Stage, *, queue: str = "hello") -> None:
    stage.say("The sender starts, sends a message and ends. No receiver runs yet.")
    sent = stage.spawn("-m", "lessons.programs.hello_send", "Hello").communicate(timeout=30)[0].strip()
    stage.moves("Hello", "sender", "()", "[hello]")
    stage.prove("The sender printed “Sent: Hello” and ended.", sent, "Sent: Hello")
    stage.prove("One message waits in [hello].", stage.ready("hello"), 1)

    stage.say("The receiver starts, in another process.")
    receiver = stage.spawn("-m", "lessons.programs.hello_receive", queue)
    consumers = stage.eventually(lambda: stage.consumers("hello"), 1)
    stage.prove("[hello] has a consumer: the receiver.", consumers, 1)
    stage.moves("Hello", "[hello]", "receiver")
    stage.prove("The receiver printed “Received: Hello”.", line(receiver), "Received: Hello")
    stage.prove("No message waits in [hello] any more.", stage.ready("hello"), 0)

    stage.say("The receiver still runs. Another message is sent.")
    stage.spawn("-m", "lessons.programs.hello_send", "Hello again").wait(30)
    stage.moves("Hello again", "sender", "()", "[hello]", "receiver")
    stage.prove("The receiver printed “Received: Hello again” at once.", line(receiver), "Received: Hello again")

    stage.say("The receiver is killed. The sender does not notice it.")
    receiver.kill()
    stage.eventually(lambda: stage.consumers("hello"), 0)
    stage.spawn("-m", "lessons.programs.hello_send", "Are you there?").wait(30)
    stage.really("A message needs a receiver.", "It waits in [hello] until a receiver comes.", stage.ready("hello"), 1)


def line(program: Popen[str]) -> str | None:
    """Return the next line that a program prints. None: it printed nothing within three seconds."""
    assert program.stdout
    there, _, _ = select([program.stdout], [], [], 3)
    return program.stdout.readline().strip() if there else None
