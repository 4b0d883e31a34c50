"""How every service of Flixtrail speaks Celery. Each line says which guarantee it buys.

Read by `history_worker/app.py` (consumes) and `streaming_app/publisher.py` (produces).
"""

from view_events import topology
from view_events.settings import BrokerSettings, read

# -- Where -----------------------------------------------------------------------------------------

broker_url = read(BrokerSettings).amqp_url
# Learner mode: without RabbitMQ the messages lie in PostgreSQL, in the tables of pgmq.
learner_mode = not topology.is_amqp(broker_url)

# One exchange, one work queue. They are declared in view_events/topology.py and never made up from a name.
task_queues = [topology.HISTORY]
task_default_queue = topology.HISTORY.name
task_default_exchange = topology.VIEWS.name
task_default_exchange_type = topology.VIEWS.type
task_default_routing_key = "view"
task_create_missing_queues = False

# -- What travels ----------------------------------------------------------------------------------

# JSON and nothing else: a message can be read by a person, and cannot carry code.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
# Nobody waits for a result, so none is kept. What was written stands in PostgreSQL.
task_ignore_result = True
# Messages are written to disk by the broker.
task_default_delivery_mode = "persistent"

# -- Commit, then ack ------------------------------------------------------------------------------

# The message is acknowledged after the task has returned, and the task returns after its commit. A worker that dies
# earlier leaves the message with the broker, which delivers it again.
task_acks_late = True
# A prefork child that dies (kill -9, out of memory) gives back its own message; Celery would acknowledge it otherwise.
task_reject_on_worker_lost = True
# A task that raises is rejected, not acknowledged: its message moves to the dead-letter queue instead of vanishing.
task_acks_on_failure = False
task_acks_on_timeout = False

# -- A worker and its connection -------------------------------------------------------------------

# Declares the topology on every connect.
worker_consumer = "history_worker.consumer:Consumer"
# Messages a worker holds ahead of its work, for each process of its pool: enough to never wait for the network, few
# enough that a slow worker does not sit on what another could do.
worker_prefetch_multiplier = 5 if learner_mode else 32
# Try for ever, also at the first start: a worker waits for its broker, it does not give up on it.
broker_connection_retry = True
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# The broker may close a channel and keep the connection (406: a delivery was held for longer than its
# `consumer_timeout`). The worker connects again; without this it would end.
broker_channel_error_retry = True
broker_connection_timeout = 4
# A broker that stopped answering is noticed after about twice this many seconds.
broker_heartbeat = 10
# When the connection is lost its messages are delivered to somebody else. A task that is under way may go on: it
# commits, its ack goes nowhere, and the redelivery finds every id stored already.
worker_cancel_long_running_tasks_on_connection_loss = False
# The prefetch that Celery lowers after a lost connection would stay low for long; the queue is the right buffer.
worker_enable_prefetch_count_reduction = False
# A worker that comes back under its old name before the broker has buried its old connection would be locked out of an
# exclusive control queue (405 RESOURCE_LOCKED) and exit; RabbitMQ 4.3 takes a shared one only if it is durable.
control_queue_exclusive = False
control_queue_durable = True

# In learner mode a worker holds a message for `visibility_timeout` seconds from the moment it read it; then it goes to
# another worker. Short, so that a redelivery can be watched; the few messages held ahead are done well before.
# `wait_time_seconds` 0: a poll would otherwise sit inside PostgreSQL for that long, whatever else the worker has to do.
broker_transport_options = (
    {
        # pgmq would take DATABASE_URL, wherever that is set, for the address of the messages.
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
# pgmq has no room for the names of the reply queues that remote control makes.
worker_enable_remote_control = not learner_mode

# -- Logs ------------------------------------------------------------------------------------------

# The services set up their own logging (view_events/logs.py).
worker_hijack_root_logger = False
worker_redirect_stdouts = False
