"""Flask with a pool of SQLAlchemy's, whose first connection is made at import, as in many programs."""

import os
from collections.abc import Iterator

from flask import Flask, Response, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{os.environ['NOTES_DB']}"
db = SQLAlchemy(app)


class Note(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    text = db.Column(db.String(80))


with app.app_context():
    db.create_all()
    KEPT = db.engine.connect()  # and forgotten
    KEPT.execute(text("select 1"))


@app.get("/")
def count() -> str:
    return f"{Note.query.count()} notes"


@app.post("/notes")
def add() -> str:
    note = Note(text=request.files["file"].filename)
    db.session.add(note)
    db.session.commit()
    return str(len(request.files["file"].read()))


@app.get("/stream")
def stream() -> Response:
    def lines() -> Iterator[str]:
        for number in range(200):
            yield f"line {number}\n"

    return Response(lines(), mimetype="text/plain")
