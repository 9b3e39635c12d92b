"""A stand-in for the dashboard of a Ray head: it notes what is submitted, and ends it as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Dashboard:
    address: str = ""
    token: str | None = None
    """that it wants"""
    log: str = "step 1\n"
    outcome: dict = field(default_factory=lambda: {"status": "SUCCEEDED", "driver_exit_code": 0})
    jobs: list[dict] = field(default_factory=list)
    """what was submitted"""
    uploaded: list[str] = field(default_factory=list)
    tailed: threading.Event = field(default_factory=threading.Event)
    endless: bool = False
    """whether the log is not followed by an end"""

    @web.middleware
    async def _guarded(self, request: web.Request, handler) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        if self.token and given != f"Bearer {self.token}":
            return web.Response(status=403 if given else 401)
        return await handler(request)

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})

    async def _submit(self, request: web.Request) -> web.Response:
        self.jobs.append(await request.json())
        name = self.jobs[-1]["submission_id"]
        return web.json_response({"job_id": name, "submission_id": name})

    async def _package(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(status=404)
        self.uploaded.append(request.path)
        return web.Response()

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(self.log)
        self.tailed.set()
        while self.endless:
            await asyncio.sleep(0.05)
        await socket.close()
        return socket

    async def _details(self, request: web.Request) -> web.Response:
        about = {"type": "SUBMISSION", "submission_id": request.match_info["name"], "entrypoint": ""}
        return web.json_response(about | self.outcome)

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guarded])
        application.add_routes(
            [
                web.get("/api/version", self._version),
                web.post("/api/jobs/", self._submit),
                web.route("*", "/api/packages/{protocol}/{name}", self._package),
                web.get("/api/jobs/{name}/logs/tail", self._tail),
                web.get("/api/jobs/{name}", self._details),
            ]
        )
        return application


@contextmanager
def running(dashboard: Dashboard) -> Iterator[Dashboard]:
    """Serve it on a free port of the loopback."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(dashboard.application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1).start()
        dashboard.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield dashboard
    finally:
        dashboard.endless = False
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
