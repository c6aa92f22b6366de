"""The zygote process of a generation: loads the app, forks workers, reaps them; no loop, no threads."""
