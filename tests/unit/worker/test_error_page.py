"""The page of an application that is broken."""

from aserver.worker.error_page import page


def test_the_page_shows_the_users_frames_and_the_lines_around() -> None:
    trace = (
        "Traceback (most recent call last):\n"
        '  File "/venv/lib/site-packages/starlette/routing.py", line 3, in app\n    await it()\n'
        f'  File "{__file__}", line 3, in handler\n    from aserver.worker.error_page import page\n'
        "ValueError: wrong\n"
    )
    text = page(trace)
    assert "starlette" not in text
    assert "from aserver.worker.error_page import page" in text
    assert "def test_the_page_shows" in text, "three lines below"
    assert "<script" not in text
