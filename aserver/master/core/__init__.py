"""The master's decisions. Pure: no system call, no clock, no chance; `machine` is the entry."""
