"""Compares ASGI servers: installs peers of fixed versions, loads them in rounds, reports ratios.

A tool for people and for CI, run as `python -m bench`; never imported by aserver. It talks to loopback only and ends
only processes that it started.
"""
