"""Metrics: counted by each worker on a page of shared memory, summed by the master, told as families of samples."""
