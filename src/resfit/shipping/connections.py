"""uvicorn's HTTP protocol with limits that it lacks: the time a request's head may take, slow readers, connections.

A connection that has sent no whole head within the time is closed, and so is one that does not read its answer. Where there
are too many, the one that has waited longest without a request makes room, so that idle ones cannot keep others out.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.auto import AutoHTTPProtocol


def limited(seconds: float, most: int) -> type[asyncio.Protocol]:
    """Return a protocol class for one server: `seconds` to send a head or read an answer, `most` connections."""
    base: Any = AutoHTTPProtocol  # of uvicorn's protocols: asyncio's methods, `cycle` and `connections` are used
    idle: dict[Any, asyncio.TimerHandle] = {}  # the connections without a request, the oldest first

    class Limited(base):  # type: ignore[misc]
        """One connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                if not idle:
                    transport.abort()
                    return
                next(iter(idle)).cut()
            self.begin()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.look()

        def data_received(self, data: bytes) -> None:
            try:
                super().data_received(data)
            except h11.LocalProtocolError:  # uvicorn answers a bad body although an answer has gone out
                self.transport.abort()
            self.look()

        def connection_lost(self, exc: Exception | None) -> None:
            self.end()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self.begin()

        def resume_writing(self) -> None:
            super().resume_writing()
            self.end()

        def look(self) -> None:
            """Let the time run where there is no request, and not where there is one: that is the application's to limit."""
            if self.cycle is not None and not self.cycle.response_complete:
                self.end()
            elif self not in idle:
                self.begin()

        def begin(self) -> None:
            """Let the time run from now on."""
            self.end()
            if not self.transport.is_closing():
                idle[self] = self.loop.call_later(seconds, self.cut)

        def end(self) -> None:
            """Stop the clock."""
            timer = idle.pop(self, None)
            if timer is not None:
                timer.cancel()

        def cut(self) -> None:
            """Close the connection at once."""
            self.end()
            self.transport.abort()

    return Limited
