"""NiceGUI on FastAPI, as its documentation has it for a server that is started by itself."""

from fastapi import FastAPI
from nicegui import ui

app = FastAPI()


@ui.page("/")
def index() -> None:
    label = ui.label("not clicked")
    ui.button("click", on_click=lambda: label.set_text("clicked"))


ui.run_with(app, storage_secret="of the tests")
