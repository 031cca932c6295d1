"""KServe's Python client, in a process and an environment of its own (`make interop-clients` makes it)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.wire.datatypes import DATATYPES
from tests.conftest import publish_affine
from tests.interop.clients import DRIVERS, Failure, client_process
from tests.interop.zoo import identity_name
from tests.processes import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.interop.clients import ClientProcess

pytestmark = pytest.mark.slow  # a suite of another project's client

PYTHON = Path(os.environ.get("KSERVE_PYTHON", Path(__file__).parents[2] / ".venv-kserve/bin/python"))
X = np.array([[1, 2, 3]], np.float32)


@pytest.fixture(scope="module")
def new_kserve() -> Callable[[int], AbstractContextManager[ClientProcess]]:
    if not PYTHON.exists():
        pytest.skip(f"KServe's client is not installed: no {PYTHON.name} in its environment (`make interop-clients`)")
    return lambda port: client_process(PYTHON, DRIVERS / "kserve_client.py", f"127.0.0.1:{port}")


@pytest.fixture(scope="module")
def kserve(new_kserve, zoo_server) -> Iterator[ClientProcess]:
    with new_kserve(zoo_server.port) as client:
        yield client


def tensor(data, name="x", datatype="FP32", shape=None):
    return {"name": name, "datatype": datatype, "data": data, "shape": shape or list(data.shape)}


def test_live_and_ready(kserve) -> None:
    assert kserve.ask("is_server_live") is True
    assert kserve.ask("is_server_ready") is True
    assert kserve.ask("is_model_ready", model_name="affine") is True
    assert kserve.ask("is_model_ready", model_name="broken") is False


def test_an_unknown_model_is_not_found(kserve) -> None:
    for failure in (
        kserve.ask("is_model_ready", model_name="nope"),
        kserve.ask("infer", model="nope", inputs=[tensor(X)]),
    ):
        assert isinstance(failure, Failure)
        assert (failure.code, failure.message) == ("NOT_FOUND", "Request for unknown model: 'nope' is not found")


def test_arrays_go_and_come_raw(kserve) -> None:
    answer = kserve.ask("infer", model="affine", inputs=[tensor(X)], request_id="from kserve")
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("affine", "2", "from kserve")
    assert answer["outputs"]["y"].tolist() == [[4, 7, 10]]


def test_lists_go_and_come_typed(kserve) -> None:
    answer = kserve.ask("infer", model="affine", inputs=[tensor([1.0, 2.0, 3.0], shape=[1, 3])])
    assert answer["outputs"]["y"].tolist() == [[4, 7, 10]]


# KServe's client does not know BF16, and the protocol has no typed FP16.
FORMS = [(name, form) for name in DATATYPES for form in ("raw", "typed") if name != "BF16"]
FORMS.remove(("FP16", "typed"))


@pytest.mark.parametrize(("datatype", "form"), FORMS)
def test_every_datatype_of_its_own_goes_there_and_back(kserve, datatype, form) -> None:
    if datatype == "BYTES":
        array = np.array([[b"", "größer".encode()]], np.object_)
    else:
        array = np.array([[1, 0]]).astype(DATATYPES[datatype].numpy)
    if form == "raw":
        sent = tensor(array, datatype=datatype)
    else:
        listed = [element.decode() for element in array.flat] if datatype == "BYTES" else array.ravel().tolist()
        sent = tensor(listed, datatype=datatype, shape=[1, 2])
    answer = kserve.ask("infer", model=identity_name(datatype), inputs=[sent])
    assert answer["outputs"]["y"].dtype == array.dtype
    assert answer["outputs"]["y"].tolist() == array.tolist()


def test_requested_outputs_and_parameters(kserve) -> None:
    inputs = [
        tensor(np.ones((1, 2), np.float32), "a"),
        tensor(np.ones((1, 2), np.int64), "b", "INT64"),
        tensor(np.array([True]), "flag", "BOOL"),
        tensor(np.array([b"one"], np.object_), "text", "BYTES"),
    ]
    answer = kserve.ask("infer", model="mixed", inputs=inputs, outputs=["same", "total"], parameters={"any": "thing"})
    assert answer["order"] == ["same", "total"]
    assert answer["outputs"]["total"].tolist() == [[2, 2]]
    assert answer["outputs"]["same"].tolist() == [b"one"]


def test_a_deadline(kserve) -> None:
    slow = tensor(np.array([[3000]], np.float32))
    assert kserve.ask("infer", model="spin", inputs=[slow], timeout=0.05).code == "DEADLINE_EXCEEDED"


def test_only_what_may_pass_is_tried_again(zoo, tmp_path, new_kserve) -> None:
    options = ("--log-level", "debug", "--no-strict-readiness")
    with serve(zoo, tmp_path / "log", *options) as server, new_kserve(server.port) as client:
        # Its client retries UNAVAILABLE, three attempts in all, and nothing else.
        assert client.ask("infer", model="broken", inputs=[tensor(X)]).code == "UNAVAILABLE"
        assert client.ask("infer", model="nope", inputs=[tensor(X)]).code == "NOT_FOUND"
        assert client.ask("infer", model="affine", inputs=[tensor(X[:, :2])]).code == "INVALID_ARGUMENT"
        lines = [line for line in server.lines() if str(line.get("method", "")).endswith("/ModelInfer")]
        assert [line["code"] for line in lines] == [*["UNAVAILABLE"] * 3, "NOT_FOUND", "INVALID_ARGUMENT"]


def test_loading_and_unloading_in_kserves_shape(tmp_path, new_kserve) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    publish_affine(repository)
    with (
        serve(repository, tmp_path / "log", "--model-control-mode", "explicit") as server,
        new_kserve(server.port) as client,
    ):
        asked = {"model_name": "affine"}
        assert client.ask("stub", rpc="RepositoryModelLoad", request=asked) == {**asked, "isLoaded": True}
        assert client.ask("is_model_ready", model_name="affine") is True
        assert client.ask("stub", rpc="RepositoryModelUnload", request=asked) == {**asked, "isUnloaded": True}
        assert client.ask("is_model_ready", model_name="affine") is False
