"""Configures Celery for every service of Flixtrail. Each comment says what a setting guarantees.

`history_worker/app.py` reads it to consume, `streaming_app/__init__.py` to publish.
"""

from service import addresses
from service.settings import BrokerSettings, read
from view_events import topology

# -- Where -----------------------------------------------------------------------------------------

broker_url = read(BrokerSettings).amqp_url
# With amqps://, the broker's certificate must name the host in the address. A CA that this machine knows must have
# signed it.
broker_url, broker_use_ssl = addresses.connection_options(broker_url)
# In learner mode there is no RabbitMQ: PostgreSQL keeps the messages, in the tables of pgmq.
learner_mode = not topology.is_amqp(broker_url)

# One exchange and one work queue. view_events/topology.py declares them; Celery makes up no queue from a name.
task_queues = [topology.HISTORY]
task_default_queue = topology.HISTORY.name
task_default_exchange = topology.VIEWS.name
task_default_exchange_type = topology.VIEWS.type
task_default_routing_key = "view"
task_create_missing_queues = False

# -- What travels ----------------------------------------------------------------------------------

# Only JSON: a person can read a message, and a message cannot carry code.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
# No service waits for a result, so Celery keeps none. PostgreSQL has what was written.
task_ignore_result = True
# The broker writes messages to disk.
task_default_delivery_mode = "persistent"

# -- Commit, then ack ------------------------------------------------------------------------------

# The worker acknowledges a message after its task has returned. The task returns after its commit. A worker that dies
# earlier leaves the message with the broker, which delivers it again.
task_acks_late = True
# If a process of the pool dies (kill -9, out of memory), the worker requeues its message. By default Celery would
# acknowledge it.
task_reject_on_worker_lost = True
# If a task raises an error, the worker rejects its message instead of acknowledging it. So the message becomes a dead
# letter and is not lost.
task_acks_on_failure = False
task_acks_on_timeout = False

# -- A worker and its connection -------------------------------------------------------------------

# This consumer declares the topology on every connect.
worker_consumer = "safe_consumer.consumer:Consumer"
# The prefetch: how many messages the broker sends ahead to a worker, for each process of its pool. It is high enough
# that a worker never waits for the network. It is low enough that most messages stay in the queue for other workers, so
# that a slow worker does not keep messages that another worker could write.
worker_prefetch_multiplier = 5 if learner_mode else 32
# Retry for ever, also at the first start: a worker waits for its broker.
broker_connection_retry = True
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# RabbitMQ may close a channel and keep the connection. Up to 4.2 it does so (406) if a worker keeps a message for
# longer than `consumer_timeout`. With this setting the worker connects again; without it the worker would exit.
broker_channel_error_retry = True
broker_connection_timeout = 4
# Seconds. A worker notices a broker that stopped answering after about twice this time.
broker_heartbeat = 10
# After a lost connection the broker delivers the messages to another worker. A running task may go on: it commits, and
# its ack has no effect. The redelivery finds that every id is stored already.
worker_cancel_long_running_tasks_on_connection_loss = False
# After a lost connection Celery would lower the prefetch, and it would stay low for long. If there are many messages,
# the messages are better kept in the queue.
worker_enable_prefetch_count_reduction = False
# A worker may come back under its old name while the broker still has its old connection. With an exclusive control
# queue it would get 405 RESOURCE_LOCKED and exit. RabbitMQ 4.3 accepts a shared control queue only if it is durable.
control_queue_exclusive = False
control_queue_durable = True

# Learner mode. `visibility_timeout`: so many seconds after a worker has read a message, another worker gets it. It is
# short, so that you can watch a redelivery. A worker prefetches only a few messages and has written them long before.
# `wait_time_seconds` is 0: a poll that waits would block the worker's other work for that time.
broker_transport_options = (
    {
        # Without this, pgmq would read the address from DATABASE_URL, wherever that is set.
        "conn_string": topology.messages_database(broker_url),
        "init_extension": False,  # `make demo` has installed pgmq's SQL already
        "visibility_timeout": 15,
        "wait_time_seconds": 0,
        "polling_interval": 0.2,
        "pool_size": 4,
        "pool_timeout": 2,
    }
    if learner_mode
    else {}
)
# Remote control makes reply queues, and their names are too long for pgmq.
worker_enable_remote_control = not learner_mode

# -- Logs ------------------------------------------------------------------------------------------

# The services set up their own logging (service/logs.py).
worker_hijack_root_logger = False
worker_redirect_stdouts = False
