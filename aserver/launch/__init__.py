"""Starting a server from a command or a program: settings in, a running master or an embedded worker out."""
