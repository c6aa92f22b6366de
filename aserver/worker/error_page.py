"""The page about an exception, for a browser, while an application is developed (`reload`).

Runs in the worker. It shows source code, so it must never be made without `reload`.
"""

import html
import linecache

from aserver import importer

#: Lines of source before and after that of a frame.
AROUND = 4

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.3rem; overflow-wrap: anywhere }} h2 {{ font-size: 1rem; margin: 1.5rem 0 .3rem }}
pre {{ font: 14px/1.5 ui-monospace, monospace; overflow-x: auto; padding: .7rem; border: 1px solid #8886;
border-radius: 6px; margin: 0 }} mark {{ background: #e5484d33; color: inherit; display: block;
width: max-content; min-width: 100% }}
p {{ color: #888 }}
</style></head><body><h1>{title}</h1>{places}<h2>Traceback</h2><pre>{text}</pre>
<p>{hint} aserver shows this page because of <code>reload</code>.</p>{script}</body></html>
"""


def page(traceback: str, *, title: str = "", script: str = "") -> str:
    """HTML with the user's frames of a traceback, the innermost first, and the lines around each.

    Without a `title` it is the last line of the traceback. `script` is put into it as it is.
    """
    traceback = importer.users_part(traceback)
    title = title or (traceback.strip().splitlines() or ["error"])[-1]
    shown = (_place(*place) for place in reversed(importer.places(traceback)))
    hint = "It loads again by itself when the code is saved." if script else ""
    return _PAGE.format(
        title=html.escape(title),
        places="".join(dict.fromkeys(shown)),
        text=html.escape(traceback),
        hint=hint,
        script=script,
    )


def _place(file: str, line: int, function: str) -> str:
    linecache.checkcache(file)
    lines = []
    for number in range(max(1, line - AROUND), line + AROUND + 1):
        source = linecache.getline(file, number)
        if source or number <= line:
            text = html.escape(f"{number:5}  {source.rstrip()}")
            lines.append(f"<mark>{text}</mark>" if number == line else text + "\n")
    where = f"{file}, line {line}" + (f", in {function}" if function else "")
    return f"<h2>{html.escape(where)}</h2><pre>{''.join(lines)}</pre>"
