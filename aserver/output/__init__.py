"""The process that reads what C code and subprocesses print, with `capture_output`; it never runs the application."""
