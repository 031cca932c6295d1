"""A small typed client for any server that speaks the Open Inference Protocol.

`InferenceClient` blocks, `AsyncInferenceClient` is for asyncio; both take the same arguments and give the same answers.
Neither imports the server or onnxruntime, and either can share a process with tritonclient: see `service.pb`.

    client             channels, connection      operations            answers, errors
    public methods ->  transport             ->  each call's request,  return values
                                                 and how to read
                                                 its response

`TrainingClient` and `AsyncTrainingClient` do this for training runs: `training_operations`, `training_run`.
"""

from .answers import (
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
from .async_client import AsyncInferenceClient
from .async_training_client import AsyncTrainingClient
from .connection import RETRIES, RetryPolicy, Tls
from .errors import ErrorDetails, FieldViolation, ServerError
from .operations import datatype_of
from .operations import infer as request
from .sync_client import InferenceClient
from .training_client import TrainingClient
from .training_run import TrainingRun

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
