"""Do the same work with queuectl and with other queues, in turn, and compare."""
