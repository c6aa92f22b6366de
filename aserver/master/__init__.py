"""The master process: decides and supervises; never imports user code, never forks."""
