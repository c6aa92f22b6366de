LATER = {"threads", "backpressure", "request_timeout", "statsd_host", "statsd_prefix"}
