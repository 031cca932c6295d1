"""Describe a model version in Triton's messages ModelConfig and ModelStatistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.pb import open_inference_pb2 as pb
from service.runtime.batcher import CONCURRENT_RUNS, DEFAULT_PRIORITY, PRIORITY_LEVELS

if TYPE_CHECKING:
    from models.artifact.tensor_spec import TensorSpec
    from service.repository.model_version import ModelVersion
    from service.repository.version_policy import VersionPolicy
    from service.runtime.runner import Runner
    from service.runtime.statistics import Duration

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"


def model_config(version: ModelVersion, runner: Runner, policy: VersionPolicy) -> pb.ModelConfig:
    """The configuration that Triton would need for this model.

    ``dims`` leave out the batch axis where ``max_batch_size`` is above 0, while ModelMetadata's shapes include it;
    perf_analyzer relies on both.
    """
    batched = runner.max_batch_size > 0
    config = pb.ModelConfig(
        name=version.name,
        platform=PLATFORM,
        backend=BACKEND,
        default_model_filename="model.onnx",
        max_batch_size=runner.max_batch_size,
        version_policy=_policy(policy),
        input=[
            pb.ModelInput(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batched=batched))
            for spec in runner.inputs.values()
        ],
        output=[
            pb.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batched=batched))
            for spec in runner.outputs.values()
        ],
        # One session, with as many concurrent runs as Triton would have with this number of instances.
        instance_group=[
            pb.ModelInstanceGroup(name=version.name, count=CONCURRENT_RUNS, kind=pb.ModelInstanceGroup.KIND_CPU)
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    if batched:
        config.dynamic_batching.CopyFrom(
            pb.ModelDynamicBatching(
                max_queue_delay_microseconds=runner.batching.max_queue_delay_us,
                priority_levels=PRIORITY_LEVELS,
                default_priority_level=DEFAULT_PRIORITY,
                default_queue_policy=pb.ModelQueuePolicy(
                    timeout_action=pb.ModelQueuePolicy.REJECT,
                    allow_timeout_override=True,
                    max_queue_size=runner.batching.max_queue_size,
                ),
            )
        )
    if runner.why_not_batched is not None:
        config.parameters["not_batched_because"].string_value = runner.why_not_batched
    else:
        config.parameters["batched_because"].string_value = runner.rows.reason
    config.parameters["proof"].string_value = "proven" if version.is_proven else "unproven"
    return config


def model_statistics(runner: Runner) -> pb.ModelStatistics:
    """The statistics of a version since it was loaded: counts and nanoseconds."""
    now = runner.statistics.snapshot()
    return pb.ModelStatistics(
        name=runner.name,
        version=runner.version,
        last_inference=now.last_inference_ms,
        inference_count=now.inference_count,
        execution_count=now.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(now.success),
            fail=_duration(now.fail),
            queue=_duration(now.queue),
            compute_input=_duration(now.compute_input),
            compute_infer=_duration(now.compute_infer),
            compute_output=_duration(now.compute_output),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows,
                compute_input=_duration(counts.compute_input),
                compute_infer=_duration(counts.compute_infer),
                compute_output=_duration(counts.compute_output),
            )
            for rows, counts in now.batches.items()
        ],
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def _dims(spec: TensorSpec, *, batched: bool) -> tuple[int, ...]:
    return spec.wire_shape[1:] if batched else spec.wire_shape


def _data_type(spec: TensorSpec) -> pb.DataType.ValueType:
    return pb.DataType.Value("TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}")


def _policy(policy: VersionPolicy) -> pb.ModelVersionPolicy:
    if policy.specific:
        return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=policy.specific))
    if policy.latest is None:
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=policy.latest))
