"""What every service needs: settings, logs, metrics, listening, tracing, the connections to broker and database."""
