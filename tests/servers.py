"""Servers on the loopback that hold files: one for HTTP that can be made to fail, one for S3."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Http:
    """A folder served at `url`. `asked`: paths in the order of requests."""

    url: str
    asked: list[str] = field(default_factory=list)
    answer: Callable[[str], int] = lambda path: 200
    """the status to answer a path with; 0 breaks off in the middle of the file"""


@contextmanager
def http(folder: Path) -> Iterator[Http]:
    """Serve a folder over HTTP."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
    server.served = Http(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    try:
        yield server.served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        served = self.server.served
        served.asked.append(self.path)
        status = served.answer(self.path)
        if status == 200:
            super().do_GET()
        elif status:
            self.send_error(status)
        else:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def s3(bucket: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve a folder's files from a bucket: (address of the bucket, environment to reach it)."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    s3fs.S3FileSystem.clear_instance_cache()  # they remember the server of an earlier test
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="someone",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        for path in filter(Path.is_file, folder.rglob("*")):
            client.upload_file(str(path), bucket, str(path.relative_to(folder)))
        yield f"s3://{bucket}", environment
    finally:
        server.stop()


def dead_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
