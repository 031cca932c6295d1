"""A small typed client for any server that speaks the Open Inference Protocol.

`InferenceClient` blocks, `AsyncInferenceClient` is for asyncio; both take the same arguments and give the same answers.
Neither imports the server or onnxruntime, and either can share a process with tritonclient: see `service.pb`.

    client             channels, connection      operations            answers, errors
    what you call  ->  how it gets there     ->  each call's request,  what you get back
                                                 and how to read
                                                 its response

`TrainingClient` and `AsyncTrainingClient` are the same for training runs: `training_operations`, `training_run`.
"""

from service.client.answers import (
    Answer,
    Classified,
    ModelConfig,
    ModelInfo,
    ModelState,
    ModelStatistics,
    ServerInfo,
    TensorConfig,
    TensorInfo,
    TimeSpent,
)
from service.client.async_client import AsyncInferenceClient
from service.client.async_training_client import AsyncTrainingClient
from service.client.connection import RETRIES, RetryPolicy, Tls
from service.client.errors import ErrorDetails, FieldViolation, ServerError
from service.client.operations import datatype_of
from service.client.operations import infer as request
from service.client.sync_client import InferenceClient
from service.client.training_client import TrainingClient
from service.client.training_run import TrainingRun

__all__ = [
    "RETRIES",
    "Answer",
    "AsyncInferenceClient",
    "AsyncTrainingClient",
    "Classified",
    "ErrorDetails",
    "FieldViolation",
    "InferenceClient",
    "ModelConfig",
    "ModelInfo",
    "ModelState",
    "ModelStatistics",
    "RetryPolicy",
    "ServerError",
    "ServerInfo",
    "TensorConfig",
    "TensorInfo",
    "TimeSpent",
    "Tls",
    "TrainingClient",
    "TrainingRun",
    "datatype_of",
    "request",
]
