from __future__ import annotations

import asyncio
import time

import pytest

from service.bench import timer as module
from service.bench.timer import Timer


@pytest.mark.parametrize("platform", ["linux", "elsewhere"])
async def test_it_fires_once_and_not_before_its_time(platform, monkeypatch) -> None:
    if platform != "linux":
        monkeypatch.setattr(module.sys, "platform", platform)
    fired = []
    came = asyncio.Event()

    def on_time() -> None:
        fired.append(time.monotonic())
        came.set()

    timer = Timer(on_time)
    try:
        timer.set(time.monotonic() + 3600)
        when = time.monotonic() + 0.01
        timer.set(when)
        await asyncio.wait_for(came.wait(), 20)
        assert fired[0] >= when - 1e-3
        came.clear()
        timer.set(0)
        await asyncio.wait_for(came.wait(), 20)
        await asyncio.sleep(0.01)
        assert len(fired) == 2
    finally:
        timer.close()
        timer.close()


async def test_closed_it_never_fires() -> None:
    fired = []
    timer = Timer(lambda: fired.append(1))
    timer.set(time.monotonic() + 0.005)
    timer.close()
    await asyncio.sleep(0.02)
    assert not fired
