"""GraphQL by strawberry: a query, an upload, and a subscription over a WebSocket."""

from collections.abc import AsyncIterator

import strawberry
from strawberry.asgi import GraphQL
from strawberry.file_uploads import Upload


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "world"


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def size(self, file: Upload) -> int:
        return len(await file.read())


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number


app = GraphQL(strawberry.Schema(Query, Mutation, Subscription), multipart_uploads_enabled=True)
