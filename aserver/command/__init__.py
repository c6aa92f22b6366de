"""The `aserver` command: its verbs, each a module. Runs in the command's own process."""
