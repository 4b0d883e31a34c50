"""A demo on one machine: a private PostgreSQL and RabbitMQ, the services, and the supervisor that runs them."""
