"""What the streaming app and the history worker share: the event, its way through the broker, settings and logs."""
