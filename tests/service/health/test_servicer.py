from __future__ import annotations

import asyncio
import shutil

import grpc
import pytest

from service.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest
from tests.conftest import publish_affine, put_plain

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    ("models", "service", "status"),
    [
        (["good"], "", SERVING),
        (["good"], "inference.GRPCInferenceService", SERVING),
        (["good"], "model/good", SERVING),
        ([], "", NOT_SERVING),
        (["bad"], "", NOT_SERVING),
        (["good", "bad"], "", NOT_SERVING),
        (["good", "bad"], "model/good", SERVING),
        (["good", "bad"], "model/bad", NOT_SERVING),
        (["bad"], "liveness", SERVING),
    ],
)
async def test_check(repository, serving, connect, models, service, status) -> None:
    for name in models:
        if name == "good":
            publish_affine(repository, name)
        else:
            put_plain(repository, name, b"junk")
    async with serving(repository) as server, connect(server) as stubs:
        response = await stubs.health.Check(HealthCheckRequest(service=service))
        assert response.status == status


async def test_check_of_an_unknown_name_is_not_found_and_says_what_is_known(repository, serving, connect) -> None:
    publish_affine(repository, "good")
    async with serving(repository) as server, connect(server) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stubs.health.Check(HealthCheckRequest(service="model/other"))
        assert failure.value.code() is grpc.StatusCode.NOT_FOUND
        assert "'model/good'" in failure.value.details()


async def test_list_names_the_server_the_service_and_each_model(repository, serving, connect) -> None:
    publish_affine(repository, "good")
    put_plain(repository, "bad", b"junk")
    async with serving(repository, strict_readiness=False) as server, connect(server) as stubs:
        response = await stubs.health.List(HealthListRequest())
        assert {name: status.status for name, status in response.statuses.items()} == {
            "": SERVING,
            "inference.GRPCInferenceService": SERVING,
            "model/good": SERVING,
            "model/bad": NOT_SERVING,
            "liveness": SERVING,
        }


async def test_watch_tells_the_status_now_then_not_serving_and_ends_when_the_server_leaves(
    repository, serving, connect
) -> None:
    publish_affine(repository, "good")
    async with serving(repository) as server, connect(server) as stubs:
        watch = stubs.health.Watch(HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        server.readiness.start_draining()
        assert (await asyncio.wait_for(watch.read(), 5)).status == NOT_SERVING
        assert (await stubs.health.Check(HealthCheckRequest(service="liveness"))).status == SERVING
        following = asyncio.ensure_future(watch.read())
        # It stays open while the server drains: clients would ask again and again.
        await stubs.health.Check(HealthCheckRequest())
        assert not following.done()
        server.readiness.end_watches()
        assert await asyncio.wait_for(following, 5) is grpc.aio.EOF


async def test_watch_of_an_unknown_name_says_so_and_goes_on(repository, serving, connect) -> None:
    async with serving(repository) as server, connect(server) as stubs:
        watch = stubs.health.Watch(HealthCheckRequest(service="model/late"))
        assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
        publish_affine(repository, "late")
        await asyncio.to_thread(server.repository.load_all)
        statuses = [(await asyncio.wait_for(watch.read(), 5)).status]
        if statuses[-1] == NOT_SERVING:  # seen while it was loading
            statuses.append((await asyncio.wait_for(watch.read(), 5)).status)
        assert statuses[-1] == SERVING
        watch.cancel()


async def test_watch_tells_that_a_model_was_deleted_although_requests_still_hold_it(
    repository, serving, connect
) -> None:
    publish_affine(repository, "good")
    publish_affine(repository, "late")
    name = HealthCheckRequest(service="model/late")
    async with serving(repository, repository_poll_s=3600) as server, connect(server) as stubs:
        watch = stubs.health.Watch(name)
        assert (await watch.read()).status == SERVING
        held = server.repository.get("late")
        shutil.rmtree(repository / "late")
        await server.control.rescan()
        assert (await asyncio.wait_for(watch.read(), 5)).status == HealthCheckResponse.SERVICE_UNKNOWN
        with pytest.raises(grpc.aio.AioRpcError, match="unknown service"):
            await stubs.health.Check(name)
        assert held.version == 1
        watch.cancel()


async def test_a_watcher_that_leaves_is_forgotten(repository, serving, connect) -> None:
    publish_affine(repository, "good")
    async with serving(repository) as server, connect(server) as stubs:
        watch = stubs.health.Watch(HealthCheckRequest())
        await watch.read()
        assert len(server.readiness._waiters) == 1
        watch.cancel()
        for _ in range(100):
            if not server.readiness._waiters:
                break
            await asyncio.sleep(0.02)
        assert not server.readiness._waiters
