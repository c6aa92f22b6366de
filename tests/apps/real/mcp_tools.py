"""An MCP server over streamable HTTP, without sessions, so that any worker may answer."""

from mcp.server import MCPServer

server = MCPServer("tools")


@server.tool()
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


app = server.streamable_http_app(stateless_http=True)
