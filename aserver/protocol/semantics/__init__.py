"""The rules of RFC 9110, for every version of HTTP: fields, targets, statuses, the order of a response. Pure."""
