"""The process that reads the output of C code and subprocesses (`capture_output`); it never runs the application."""
