from __future__ import annotations

import asyncio

import pytest

from service.errors import ServerStopping
from service.inference.admission import Admission


async def test_once_closed_nobody_enters_and_whoever_is_inside_may_finish() -> None:
    admission = Admission()
    with admission.enter(), admission.enter():
        admission.close()
        with pytest.raises(ServerStopping, match="Server exiting"), admission.enter():
            pass
        assert not await admission.wait_until_idle(0.01)
    assert await admission.wait_until_idle(0.01)


async def test_a_place_is_given_back_when_the_block_fails_or_is_cancelled() -> None:
    admission = Admission()
    with pytest.raises(ValueError, match="why"), admission.enter():
        raise ValueError("why")

    async def hold() -> None:
        with admission.enter():
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    assert not await admission.wait_until_idle(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await admission.wait_until_idle(0.01)
