"""`spml-dist serve`: a page on which a collection is asked."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least

EXAMPLES = """\
examples:
  spml-dist serve index/gid15                                   # http://127.0.0.1:8000
  spml-dist serve index/gid15 --port 9000
  spml-dist serve index/gid15 --host 0.0.0.0 --name gpu7.lab    # for others, who call it by that name

Nobody is asked for a password: whoever reaches the port sees the pictures.
"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "serve",
        "show a page on which to ask for segments",
        "Serve a page: choose or drop a picture, click a segment, see its like.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="index that `spml-dist index` wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=at_least(0), default=8000, help="default: 8000; 0 = any that is free")
    parser.add_argument(
        "--name", action="append", default=[], help="further name that it is called by; may repeat"
    )
    parser.add_argument(
        "--run", metavar="RUN", type=Path, dest="trained", help="the index's run, if it has moved"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    import socket

    import uvicorn

    from spml_dist.errors import RunError
    from spml_dist.retrieval.collection import open_index
    from spml_dist.retrieval.page.application import application

    collection = open_index(args.folder, args.trained)
    app = application(collection, [*LOOPBACK, args.host, *args.name])
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listening = socket.create_server((args.host, args.port), family=family)
    except (OSError, OverflowError) as problem:
        remedy = "give another --port or --host"
        raise RunError(f"{args.host}:{args.port}: cannot be listened at", problem, remedy) from problem
    host = f"[{args.host}]" if ":" in args.host else args.host
    print(f"{len(collection):,} segments at http://{host}:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_keep_alive=30)
    uvicorn.Server(config).run(sockets=[listening])
    return 0
