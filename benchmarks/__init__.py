"""Measure queuectl against limits that are measured beside it, in the same run."""
