"""The access log: formats compiled to functions, and the lines of finished requests."""
