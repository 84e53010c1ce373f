"""Serve Keystone's or Placement's own WSGI application: serve_wsgi.py MODULE SOCKET."""

import importlib
import sys

from serving import InheritingServer, die_with_parent

module, descriptor = sys.argv[1], int(sys.argv[2])
sys.argv = sys.argv[:1]  # the applications read their own options from it
die_with_parent()
InheritingServer(descriptor, importlib.import_module(module).application, threads=16).start()
