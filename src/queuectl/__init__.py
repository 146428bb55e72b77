"""A background job queue for shell commands in which the queue is a directory."""

# Written here and not looked up: importlib.metadata would double the start-up time of a command.
__version__ = "0.1.0"
