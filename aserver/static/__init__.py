"""Files of directories, served beside an application (`static`): an ASGI app around the user's.

Runs in the worker's loop; work on the disk runs in the loop's executor. `answers` decides and is pure, `files`
opens, `app` sends.
"""
