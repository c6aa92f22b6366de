"""Logging that never blocks, tears or re-enters; used by every process, each for its own lines only."""
