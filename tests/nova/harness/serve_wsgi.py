"""Serve Keystone's or Placement's own WSGI application: serve_wsgi.py MODULE SOCKET.

Each request is a line on standard output, in the form of Nova's request log: "POST /v3/auth/tokens" status: 201.
"""

import importlib
import sys

from serving import InheritingServer, die_with_parent


def logged(application):
    """Log the requests that an application answers."""

    def serve(environ, start_response):
        def start(status, *arguments):
            path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            print(f'"{environ["REQUEST_METHOD"]} {path}" status: {status.partition(" ")[0]}', flush=True)
            return start_response(status, *arguments)

        return application(environ, start)

    return serve


module, descriptor = sys.argv[1], int(sys.argv[2])
sys.argv = sys.argv[:1]  # the applications read their own options from it
die_with_parent()
InheritingServer(descriptor, logged(importlib.import_module(module).application), threads=16).start()
