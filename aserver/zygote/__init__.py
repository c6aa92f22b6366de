"""The zygote process, one per generation: loads the app, forks workers, reaps them; no loop, no threads."""
