from __future__ import annotations

import asyncio

import pytest

from service.errors import ServerStopping
from service.inference.admission import Admission


async def test_once_closed_nobody_enters_and_whoever_is_inside_may_finish() -> None:
    admission = Admission()
    assert await admission.wait_until_idle(0)
    admission.begin()
    admission.begin()
    assert not await admission.wait_until_idle(0)
    admission.close()
    with pytest.raises(ServerStopping, match="Server exiting"):
        admission.begin()
    admission.end()
    assert not await admission.wait_until_idle(0.01)
    asyncio.get_running_loop().call_soon(admission.end)
    assert await admission.wait_until_idle(30)


async def test_newcomers_are_refused_at_once_while_others_still_run() -> None:
    admission = Admission()
    assert not admission.is_closed
    admission.close()
    assert admission.is_closed
    with pytest.raises(ServerStopping, match="Server exiting"):
        await admission.refuse(None)


async def test_in_the_last_moment_whoever_has_time_is_held_until_the_transport_closes() -> None:
    admission = Admission()
    admission.close()
    admission.hold()
    held = [asyncio.create_task(admission.refuse(remaining_s)) for remaining_s in (None, 30.0)]
    with pytest.raises(ServerStopping, match="Server exiting"):
        await admission.refuse(0.2)
    await asyncio.sleep(0)
    assert not any(task.done() for task in held)
    admission.dismiss()
    for task in held:
        with pytest.raises(ServerStopping, match="Server exiting"):
            await task
    with pytest.raises(ServerStopping):
        await admission.refuse(None)
