"""What `make demo` is made of: a private PostgreSQL, a private RabbitMQ, the services, and a supervisor over them."""
