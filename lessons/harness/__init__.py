"""What plays and proves the lessons. A lesson teaches the API of kombu and RabbitMQ; this package is not part of it."""
