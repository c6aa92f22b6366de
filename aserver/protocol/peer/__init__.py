"""The client behind a peer: forwarding fields, the PROXY protocol, and the trusted peers."""
