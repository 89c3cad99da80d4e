"""Serves a WSGI or ASGI object of a Python app on PORT: serve.py FILE OBJECT.

Which of the two it is, is found out by looking at it. A server that the app has installed is used; an app without one is
served by one of this directory. If FILE has no such object, FILE is run as a script, which then serves by itself.
"""

import importlib
import os
import runpy
import sys

import lull_path
import lull_wsgi  # here, because this directory leaves sys.path before the app comes
from lull_kind import application

HOST = "0.0.0.0"


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: serve.py FILE OBJECT")
    file, name = sys.argv[1], sys.argv[2]
    sys.argv[:] = [file]
    lull_path.set_up(os.getcwd(), os.path.dirname(os.path.abspath(file)))
    module = importlib.import_module(os.path.splitext(os.path.normpath(file))[0].replace(os.sep, "."))
    target = module
    for part in name.split("."):
        target = getattr(target, part, None)
    if target is None:
        runpy.run_path(file, run_name="__main__")
        return
    kind, app = application(target)
    port = int(os.environ.get("PORT", "8080"))
    (serve_asgi if kind == "asgi" else serve_wsgi)(app, port)


def serve_asgi(app, port):
    try:
        import uvicorn
    except ImportError:
        pass
    else:
        uvicorn.run(app, host=HOST, port=port, access_log=False)
        return
    try:
        from hypercorn.asyncio import serve
        from hypercorn.config import Config
    except ImportError:
        sys.exit("an ASGI app needs a server among its packages: add uvicorn to them")
    import asyncio

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    asyncio.run(serve(app, config))


def serve_wsgi(app, port):
    # gunicorn is not used: it forks, and threads that the app began when it was imported would be left behind.
    try:
        import waitress
    except ImportError:
        lull_wsgi.serve(app, HOST, port)
    else:
        waitress.serve(app, host=HOST, port=port, threads=8)


if __name__ == "__main__":
    main()
