"""What RFC 9110 says, whatever the version of HTTP: fields, targets, statuses, the order of a response. Pure."""
