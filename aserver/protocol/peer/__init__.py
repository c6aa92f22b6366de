"""Which client is behind a peer: forwarding fields, the PROXY protocol, and which peers are believed."""
