"""Lessons: each concept of messaging, run against a real RabbitMQ, one a file.

A lesson is a module: its docstring says what you will see, `play` does it and proves it, TRY says what to change.
"""
