from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager

import pytest

from service.workers.backplane import MAX_HEADER_BYTES, Backplane, BackplaneClosed, BackplaneFailed, Message

MOST = 1_000_000


@asynccontextmanager
async def pair(handlers=None):
    """Two ends of a line; the second one has the handlers."""
    here, there = Backplane(max_body_bytes=MOST), Backplane(max_body_bytes=MOST)
    for name, handler in (handlers or {}).items():
        there.on(name, handler)
    for end, connection in zip((here, there), socket.socketpair(), strict=True):
        await end.open(connection)
    try:
        yield here, there
    finally:
        await here.close()
        await there.close()


async def test_a_call_is_answered_with_fields_and_bytes() -> None:
    async def double(message):
        return Message({"twice": 2 * message.fields["n"]}, message.body * 2)

    async with pair({"double": double}) as (here, _):
        answer = await here.call("double", {"n": 21}, b"\x00\xff", timeout_s=10)
    assert answer == Message({"twice": 42}, b"\x00\xff\x00\xff")


async def test_answers_find_their_callers_in_whatever_order_they_come() -> None:
    async def wait(message):
        await asyncio.sleep(message.fields["s"])
        return Message({"s": message.fields["s"]})

    async with pair({"wait": wait}) as (here, _):
        waits = [0.05, 0, 0.02, 0.01]
        answers = await asyncio.gather(*(here.call("wait", {"s": s}, timeout_s=10) for s in waits))
    assert [answer.fields["s"] for answer in answers] == waits


async def test_both_ends_ask_each_other_at_once() -> None:
    async with pair() as (here, there):

        async def ask_back(message):
            return await here.call("back", message.fields, timeout_s=10)

        async def back(message):
            return Message({"back": message.fields["n"]})

        here.on("ask", ask_back)
        there.on("back", back)
        answer = await there.call("ask", {"n": 7}, timeout_s=10)
    assert answer.fields == {"back": 7}


async def test_a_notice_arrives_and_is_not_answered() -> None:
    heard = asyncio.Queue()

    async def hear(message):
        await heard.put(message.fields)

    async with pair({"hear": hear}) as (here, _):
        here.notify("hear", {"n": 1})
        assert await asyncio.wait_for(heard.get(), 10) == {"n": 1}


async def test_a_failure_is_told_and_a_defect_is_not(caplog) -> None:
    async def fail(message):
        raise BackplaneFailed("there is no more of it")

    async def crash(message):
        raise KeyError("a secret")

    async with pair({"fail": fail, "crash": crash}) as (here, _):
        with pytest.raises(BackplaneFailed, match="there is no more of it"):
            await here.call("fail", timeout_s=10)
        with pytest.raises(BackplaneFailed, match=r"^crash: KeyError; the log has the details$"):
            await here.call("crash", timeout_s=10)
        with pytest.raises(BackplaneFailed, match="other: nobody here knows"):
            await here.call("other", timeout_s=10)
    assert "a secret" in caplog.text


async def test_whoever_waits_too_long_stops_waiting_and_the_line_goes_on() -> None:
    slow = asyncio.Event()

    async def wait(message):
        await slow.wait()

    async def quick(message):
        return Message({"quick": True})

    async with pair({"wait": wait, "quick": quick}) as (here, _):
        with pytest.raises(TimeoutError):
            await here.call("wait", timeout_s=0.01)
        slow.set()
        assert (await here.call("quick", timeout_s=10)).fields == {"quick": True}


async def test_calls_end_when_the_other_end_goes() -> None:
    never = asyncio.Event()
    began = asyncio.Event()

    async def wait(message):
        began.set()
        await never.wait()

    async with pair({"wait": wait}) as (here, there):
        call = asyncio.create_task(here.call("wait", timeout_s=10))
        await began.wait()
        await there.close()
        with pytest.raises(BackplaneClosed):
            await call
        await here.closed.wait()
        with pytest.raises(BackplaneClosed):
            await here.call("wait", timeout_s=10)
        here.notify("wait")  # lost, without a word


@pytest.mark.parametrize(
    ("fields", "body", "says"),
    [
        ({"text": "x" * MAX_HEADER_BYTES}, b"", "fields of 10486"),
        ({}, bytes(MOST + 1), "body of 1000001 bytes, at most 1000000 pass"),
    ],
)
async def test_what_is_too_large_is_refused_by_the_sender(fields, body, says) -> None:
    async def echo(message):
        return message

    async with pair({"echo": echo}) as (here, _):
        with pytest.raises(BackplaneFailed, match=says):
            await here.call("echo", fields, body, timeout_s=10)
        assert (await here.call("echo", {}, bytes(MOST), timeout_s=10)).body == bytes(MOST)


async def test_an_answer_that_is_too_large_is_told_as_a_failure() -> None:
    async def large(message):
        return Message(body=bytes(MOST + 1))

    async with pair({"large": large}) as (here, _):
        with pytest.raises(BackplaneFailed, match="answer: body of 1000001 bytes"):
            await here.call("large", timeout_s=10)


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!II", MAX_HEADER_BYTES + 1, 0),
        struct.pack("!II", 2, MOST + 1),
        struct.pack("!II", 4, 0) + b"junk",
        struct.pack("!II", 2, 0) + b"[]",
    ],
    ids=["header too long", "body too long", "no JSON", "no object"],
)
async def test_what_is_no_frame_ends_the_line(sent, caplog) -> None:
    ours, theirs = socket.socketpair()
    end = Backplane(max_body_bytes=MOST)
    await end.open(ours)
    theirs.sendall(sent)
    await asyncio.wait_for(end.closed.wait(), 10)
    assert "what came is no frame" in caplog.text
    await end.close()
    theirs.close()


async def test_frames_may_come_byte_by_byte() -> None:
    heard = asyncio.Queue()

    async def hear(message):
        await heard.put((message.fields, message.body))

    ours, theirs = socket.socketpair()
    end = Backplane(max_body_bytes=MOST)
    end.on("hear", hear)
    await end.open(ours)
    text = json.dumps({"name": "hear", "fields": {"n": 1}}).encode()
    for byte in struct.pack("!II", len(text), 3) + text + b"abc":
        theirs.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(heard.get(), 10) == ({"n": 1}, b"abc")
    await end.close()
    theirs.close()
