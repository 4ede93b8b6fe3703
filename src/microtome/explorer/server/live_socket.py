"""The socket: questions are text, optionally followed by pixels; answers and progress are frames."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from microtome.errors import InputError, MicrotomeError
from microtome.explorer.frames import Frame, packed
from microtome.explorer.questions import QUESTIONS
from microtome.explorer.server.computations import BusyError, Cancelled, Turn
from microtome.explorer.server.dispatch import Dispatch

__all__ = ["LiveSocket"]

_TEXT = 1 << 16  # characters of a question
_OUT = 256  # frames that may wait for a slow client; beyond that, progress is dropped


class Message(BaseModel):
    """A question with a number that its answer repeats, or the number of a question to cancel."""

    model_config = ConfigDict(extra="forbid")

    id: int = Field(ge=0, le=2**53)
    ask: str = ""
    question: dict[str, Any] = Field(default_factory=dict)
    cancel: bool = False


class LiveSocket:
    """One browser's connection.

    Text is a :class:`Message` as JSON. Bytes are the length of such a text in four bytes, the text, and the pixels of
    a picture as :meth:`KeptPictures.keep_raw` takes them; the question names that picture ``"sent"``.
    """

    def __init__(self, socket: WebSocket, dispatch: Dispatch) -> None:
        self._socket, self._dispatch = socket, dispatch
        self._tasks: dict[int, tuple[asyncio.Task[None], Turn]] = {}
        self._out: asyncio.Queue[bytes] = asyncio.Queue(_OUT)
        self._loop = asyncio.get_running_loop()

    async def serve(self) -> None:
        """Answer until the browser leaves; open questions are then cancelled."""
        await self._socket.accept()
        sender = asyncio.create_task(self._send())
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                await self._take(message)
        except WebSocketDisconnect:
            pass
        finally:
            for task, turn in self._tasks.values():
                turn.cancel()
                task.cancel()
            sender.cancel()

    async def _send(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it has left
            while True:
                await self._socket.send_bytes(await self._out.get())

    async def _take(self, received: Any) -> None:
        number = -1
        try:
            text, pixels = _parts(received)
            message = Message.model_validate_json(text)
            number = message.id
            if message.cancel:
                self._cancel(number)
                return
            if message.ask not in QUESTIONS:
                raise InputError(f"one may ask {', '.join(QUESTIONS)}.")
            if number in self._tasks or len(self._tasks) >= self._dispatch.limits.questions:
                raise BusyError
            options = dict(message.question)
            if pixels is not None:
                shape = self._dispatch.networks[0].net.input_shape
                options["picture"] = f"kept:{self._dispatch.kept.keep_raw(pixels, shape)}"
            question = QUESTIONS[message.ask].model_validate(options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            await self._out.put(_problem(number, f"{where}: {first['msg']}"[:500]))
            return
        except (MicrotomeError, BusyError) as error:
            await self._out.put(
                _problem(number, str(error) or "the server is busy.", busy=isinstance(error, BusyError))
            )
            return
        turn = Turn()
        task = asyncio.create_task(self._answer(number, question, turn))
        self._tasks[number] = (task, turn)
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    def _cancel(self, number: int) -> None:
        if number in self._tasks:
            task, turn = self._tasks[number]
            turn.cancel()
            task.cancel()

    async def _answer(self, number: int, question: BaseModel, turn: Turn) -> None:
        def tell(frame: Frame) -> None:
            self._loop.call_soon_threadsafe(self._progress, packed(frame, id=number, progress=True))

        try:
            frame = await self._dispatch.answer(question, turn, tell)
            more = {"picture": getattr(question, "picture", "")}
            await self._out.put(packed(frame, id=number, **more))
        except MicrotomeError as error:
            await self._out.put(_problem(number, str(error)))
        except BusyError:
            await self._out.put(_problem(number, "the server is busy; try again in a moment.", busy=True))
        except (asyncio.CancelledError, Cancelled):
            with contextlib.suppress(asyncio.QueueFull):
                self._out.put_nowait(packed(Frame({"cancelled": True}), id=number))
        except Exception as error:  # a fault of the explorer: report it to the browser, keep the server running
            await self._out.put(
                _problem(number, f"this could not be computed ({type(error).__name__}: {error})."[:500])
            )

    def _progress(self, content: bytes) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._out.put_nowait(content)


def _parts(received: Any) -> tuple[str, bytes | None]:
    """The text of a message, and the pixels behind it."""
    if received.get("text") is not None:
        text, pixels = str(received["text"]), None
    else:
        content: bytes = received.get("bytes") or b""
        if len(content) < 4:
            raise InputError("a message in bytes begins with the length of its text.")
        (length,) = struct.unpack("<I", content[:4])
        try:
            text, pixels = content[4 : 4 + length].decode(), content[4 + length :]
        except UnicodeDecodeError:
            raise InputError("the text of a message must be UTF-8.") from None
    if len(text) > _TEXT:
        raise InputError(f"a question has at most {_TEXT:,} characters.")
    return text, pixels


def _problem(number: int, why: str, *, busy: bool = False) -> bytes:
    return packed(Frame({"error": why, "busy": busy}), id=number)
