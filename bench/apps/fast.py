"""A small FastAPI app: a typed path parameter, a query parameter, a model as the answer."""

from fastapi import FastAPI
from pydantic import BaseModel


class Item(BaseModel):
    id: int
    name: str
    tags: list[str]
    price: float


app = FastAPI()


@app.get("/items/{item_id}")
async def item(item_id: int, q: str = "none") -> Item:
    return Item(id=item_id, name=f"item {item_id}", tags=[q, "b", "c"], price=12.5)
