"""The contract between the streaming app and its subscribers: the event, its version, and the broker's topology."""
