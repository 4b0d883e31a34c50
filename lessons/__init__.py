"""Lessons: each concept of messaging, played on a real RabbitMQ, one in each file.

A lesson is a module. Its docstring says what you will see, and `play` shows and proves it. TRY has exercises. BREAKS is
a setting for which a proof fails, and WHY says why. `lessons/programs` are processes that lessons start. The harness
(`lessons/harness`) tells, compares and asks the broker; it is not part of what the lessons teach.
"""
