"""The client behind a peer: forwarding fields, the PROXY protocol, and the peers that are believed."""
