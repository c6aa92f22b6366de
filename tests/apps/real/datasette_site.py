"""Datasette over the SQLite file that NOTES_DB names, made here if it is not there."""

import os
import sqlite3

from datasette.app import Datasette

DATABASE = os.environ["NOTES_DB"]

if not os.path.exists(DATABASE):
    with sqlite3.connect(DATABASE) as connection:
        connection.execute("create table notes (id integer primary key, text text)")
        connection.executemany("insert into notes (text) values (?)", [(f"note {n}",) for n in range(3000)])
    connection.close()

app = Datasette(files=[DATABASE], settings={"max_returned_rows": 100}).app()
