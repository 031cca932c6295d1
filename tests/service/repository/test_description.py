"""ModelConfig, ModelStatistics and the shared-memory calls through a live server."""

from __future__ import annotations

import grpc
import pytest
from onnx import TensorProto

from service.pb import open_inference_pb2 as pb
from tests.conftest import identity_model, mixed_model, publish_affine, put_plain
from tests.service.conftest import affine_request


async def test_the_configuration_of_a_batched_model_leaves_out_the_batch_axis(repository, serving, connect) -> None:
    publish_affine(repository)
    settings = {"max_batch_size": 128, "max_queue_size": 7, "max_queue_delay_us": 50}
    async with serving(repository, **settings) as server, connect(server) as stubs:
        config = (await stubs.inference.ModelConfig(pb.ModelConfigRequest(name="affine"))).config
        metadata = await stubs.inference.ModelMetadata(pb.ModelMetadataRequest(name="affine"))
    assert (config.name, config.platform, config.backend) == ("affine", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 128
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("x", pb.DataType.TYPE_FP32, [3])]
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [("y", pb.DataType.TYPE_FP32, [3])]
    assert list(metadata.inputs[0].shape) == [-1, *config.input[0].dims]
    assert config.dynamic_batching.max_queue_delay_microseconds == 50
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 7
    assert config.version_policy.latest.num_versions == 1
    assert config.parameters["proof"].string_value == "proven"
    assert not config.model_transaction_policy.decoupled
    assert [group.count for group in config.instance_group] == [2]


async def test_the_configuration_of_an_unbatched_model_has_every_axis_and_says_why(
    repository, serving, connect
) -> None:
    put_plain(repository, "mixed", mixed_model())
    put_plain(repository, "fixed", identity_model(TensorProto.STRING, (4, 2)))
    async with serving(repository) as server, connect(server) as stubs:
        mixed = (await stubs.inference.ModelConfig(pb.ModelConfigRequest(name="mixed"))).config
        fixed = (await stubs.inference.ModelConfig(pb.ModelConfigRequest(name="fixed", version="1"))).config
    assert mixed.max_batch_size == 0
    assert not mixed.HasField("dynamic_batching")
    assert [list(i.dims) for i in mixed.input] == [[-1, 2], [-1, 2], [-1], [-1]]
    assert "output 'size' is not free" in mixed.parameters["not_batched_because"].string_value
    assert (fixed.input[0].data_type, list(fixed.input[0].dims)) == (pb.DataType.TYPE_STRING, [4, 2])


async def test_statistics_count_what_happened(repository, serving, connect) -> None:
    publish_affine(repository)
    put_plain(repository, "other", identity_model(TensorProto.FLOAT))
    wrong = affine_request()
    wrong.inputs[0].shape[:] = [1, 4]
    async with serving(repository) as server, connect(server) as stubs:
        for batch in (1, 1, 5):
            await stubs.inference.ModelInfer(affine_request(batch=batch))
        with pytest.raises(grpc.aio.AioRpcError):
            await stubs.inference.ModelInfer(wrong)
        (affine,) = (await stubs.inference.ModelStatistics(pb.ModelStatisticsRequest(name="affine"))).model_stats
        everything = await stubs.inference.ModelStatistics(pb.ModelStatisticsRequest())
        versioned = await stubs.inference.ModelStatistics(pb.ModelStatisticsRequest(name="affine", version="1"))
    assert (affine.name, affine.version) == ("affine", "1")
    assert (affine.inference_count, affine.execution_count) == (7, 3)
    assert affine.last_inference > 1_600_000_000_000
    stats = affine.inference_stats
    assert (stats.success.count, stats.fail.count) == (3, 1)
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert all(part.count == 3 and part.ns > 0 for part in parts)
    assert sum(part.ns for part in parts) <= stats.success.ns
    assert {b.batch_size: b.compute_infer.count for b in affine.batch_stats} == {1: 2, 5: 1}
    assert [stats.name for stats in everything.model_stats] == ["affine", "other"]
    assert list(versioned.model_stats) == [affine]


@pytest.mark.parametrize("method", ["ModelConfig", "ModelStatistics"])
async def test_what_does_not_exist_is_not_found(repository, serving, connect, method) -> None:
    request = getattr(pb, f"{method}Request")(name="nope")
    async with serving(repository) as server, connect(server) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await getattr(stubs.inference, method)(request)
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("kind", ["System", "Cuda"])
@pytest.mark.parametrize("call", ["Status", "Register", "Unregister"])
async def test_shared_memory_is_refused_with_the_reason(repository, serving, connect, kind, call) -> None:
    name = f"{kind}SharedMemory{call}"
    async with serving(repository) as server, connect(server) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await getattr(stubs.inference, name)(getattr(pb, f"{name}Request")())
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "shared memory is not supported" in failure.value.details()


async def test_classes_come_with_the_labels_of_the_manifest(repository, serving, connect) -> None:
    publish_affine(repository, labels={"y": ("a", "b", "c")})
    request = affine_request(batch=2)
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    async with serving(repository) as server, connect(server) as stubs:
        response = await stubs.inference.ModelInfer(request)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [2, 2])
    element = b"\x0c\x00\x00\x003.000000:0:a"
    assert response.raw_output_contents[0].startswith(element)


async def test_a_model_without_a_batch_axis_counts_one_for_each_request(repository, serving, connect) -> None:
    put_plain(repository, "fixed", identity_model(TensorProto.FLOAT, (2, 3)))
    request = affine_request(batch=2, model="fixed")
    async with serving(repository) as server, connect(server) as stubs:
        for _ in range(3):
            await stubs.inference.ModelInfer(request)
        (stats,) = (await stubs.inference.ModelStatistics(pb.ModelStatisticsRequest(name="fixed"))).model_stats
    assert (stats.inference_count, stats.execution_count) == (3, 3)
    assert [counts.batch_size for counts in stats.batch_stats] == [1]
