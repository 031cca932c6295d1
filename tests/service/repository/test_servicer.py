"""Triton's model repository extension through a live server."""

from __future__ import annotations

import json
import shutil

import grpc
import numpy as np
import pytest

from service.pb import open_inference_pb2 as pb
from tests.conftest import affine_model, goldens_for, publish_affine, put_plain
from tests.service.conftest import affine_request

EXPLICIT = {"model_control_mode": "explicit"}


def rows(index: pb.RepositoryIndexResponse) -> list[tuple[str, str, str, str]]:
    return [(entry.name, entry.version, entry.state, entry.reason) for entry in index.models]


def load_request(name: str, **parameters) -> pb.RepositoryModelLoadRequest:
    request = pb.RepositoryModelLoadRequest(model_name=name)
    for key, value in parameters.items():
        if isinstance(value, bytes):
            request.parameters[key].bytes_param = value
        else:
            request.parameters[key].string_param = value
    return request


async def failure(call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details()


async def test_the_index_has_every_version_with_its_state_and_reason(repository, serving, connect) -> None:
    publish_affine(repository)
    publish_affine(repository, goldens=goldens_for(affine_model(), shift=1e-3))
    put_plain(repository, "plain", affine_model())
    put_plain(repository, "junk", b"junk")
    publish_affine(repository, "set-back")
    (repository / "empty").mkdir()
    async with serving(repository, repository_poll_s=3600) as server, connect(server) as stubs:
        (repository / "set-back" / "model.json").write_text("[]")
        await server.control.rescan()
        everything = rows(await stubs.inference.RepositoryIndex(pb.RepositoryIndexRequest()))
        ready = rows(await stubs.inference.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)))
    unproven = ("plain", "1", "READY", "served without a proof: no manifest with goldens")
    set_back = ("set-back", "1", "READY", "model.json: expected an object, got list")
    mismatch = "golden mismatch: test_data_set_0 (batch 1), output 'y': difference 0.001"
    assert ready == [("affine", "1", "READY", ""), unproven, set_back]
    assert [row[:3] for row in everything if row not in ready] == [
        ("affine", "2", "UNAVAILABLE"),
        ("empty", "", ""),
        ("junk", "1", "UNAVAILABLE"),
    ]
    assert everything[1][3].startswith(mismatch)


async def test_models_that_are_not_loaded_are_listed_by_name_and_unloaded_ones_say_so(
    repository, serving, connect
) -> None:
    publish_affine(repository, "a")
    publish_affine(repository, "b")
    async with serving(repository, load_model="a", **EXPLICIT) as server, connect(server) as stubs:
        index = stubs.inference.RepositoryIndex
        assert rows(await index(pb.RepositoryIndexRequest())) == [("a", "1", "READY", ""), ("b", "", "", "")]
        await stubs.inference.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="a"))
        assert rows(await index(pb.RepositoryIndexRequest())) == [
            ("a", "1", "UNAVAILABLE", "unloaded"),
            ("b", "", "", ""),
        ]
        assert rows(await index(pb.RepositoryIndexRequest(ready=True))) == []
        shutil.rmtree(repository / "a")
        assert rows(await index(pb.RepositoryIndexRequest())) == [("b", "", "", "")]


async def test_load_and_unload_decide_what_answers_and_the_server_stays_ready(repository, serving, connect) -> None:
    publish_affine(repository, scale=2)
    async with serving(repository, **EXPLICIT) as server, connect(server) as stubs:
        inference = stubs.inference
        assert (await inference.ServerReady(pb.ServerReadyRequest())).ready  # it does what it was asked: nothing
        assert await failure(inference.ModelInfer(affine_request())) == (
            "NOT_FOUND",
            "Request for unknown model: 'affine' is not found",
        )
        answer = await inference.RepositoryModelLoad(load_request("affine"))
        assert (answer.model_name, answer.isLoaded) == ("affine", True)
        assert (await inference.ModelInfer(affine_request())).model_version == "1"
        unload = pb.RepositoryModelUnloadRequest(model_name="affine")
        unload.parameters["unload_dependents"].bool_param = True
        gone = await inference.RepositoryModelUnload(unload)
        assert (gone.model_name, gone.isUnloaded) == ("affine", True)
        code, details = await failure(inference.ModelInfer(affine_request()))
        assert (code, details) == (
            "NOT_FOUND",
            "Request for unknown model: 'affine' has no available versions: it was unloaded",
        )
        assert not (await inference.ModelReady(pb.ModelReadyRequest(name="affine"))).ready
        assert (await inference.ServerReady(pb.ServerReadyRequest())).ready
        await inference.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="never-heard-of"))


async def test_kserves_shape_of_the_messages_is_understood(repository, serving, connect) -> None:
    """Its field 1 is the model's name, which is `repository_name` here."""
    publish_affine(repository)
    async with serving(repository, **EXPLICIT) as server, connect(server) as stubs:
        loaded = await stubs.inference.RepositoryModelLoad(pb.RepositoryModelLoadRequest.FromString(b"\x0a\x06affine"))
        assert loaded.SerializeToString() == b"\x0a\x06affine\x10\x01"
        gone = await stubs.inference.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest.FromString(b"\x0a\x06affine")
        )
        assert gone.SerializeToString() == b"\x0a\x06affine\x10\x01"


async def test_a_load_brings_its_own_config_and_files(repository, serving, connect) -> None:
    publish_affine(repository, scale=2)
    config = json.dumps(
        {"name": "affine", "max_batch_size": 2, "parameters": {"rows_are_independent": {"string_value": "true"}}}
    )
    async with serving(repository, **EXPLICIT) as server, connect(server) as stubs:
        inference = stubs.inference
        await inference.RepositoryModelLoad(
            load_request("affine", config=config, **{"file:5/model.onnx": affine_model(10)})
        )
        answer = await inference.ModelInfer(affine_request())
        assert (answer.model_version, np.frombuffer(answer.raw_output_contents[0], np.float32)[0]) == ("5", 11)
        described = (await inference.ModelConfig(pb.ModelConfigRequest(name="affine"))).config
        assert described.max_batch_size == 2
        assert (await failure(inference.ModelInfer(affine_request(batch=3))))[0] == "INVALID_ARGUMENT"
        await inference.RepositoryModelLoad(load_request("affine"))
        answer = await inference.ModelInfer(affine_request(batch=3))
        assert (answer.model_version, np.frombuffer(answer.raw_output_contents[0], np.float32)[0]) == ("1", 3)


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        (lambda s: s.RepositoryModelLoad(load_request("nope")), "INTERNAL", "failed to load 'nope', failed to poll"),
        (lambda s: s.RepositoryModelLoad(load_request("junk")), "INTERNAL", "no version is available: version 1"),
        (lambda s: s.RepositoryModelLoad(load_request("off")), "FAILED_PRECONDITION", "version 1: golden mismatch"),
        (lambda s: s.RepositoryModelLoad(load_request("../x")), "INVALID_ARGUMENT", "model name: got '../x'"),
        (lambda s: s.RepositoryModelLoad(load_request("")), "INVALID_ARGUMENT", "model name: got ''"),
        (
            lambda s: s.RepositoryModelLoad(load_request("off", speed="9")),
            "INVALID_ARGUMENT",
            "Unrecognized load parameter 'speed' with type string_param",
        ),
        (
            lambda s: s.RepositoryModelLoad(load_request("off", **{"file:1/model.onnx": b""})),
            "INVALID_ARGUMENT",
            "'config' must be there",
        ),
        (
            lambda s: s.RepositoryModelLoad(load_request("off", config="{}", **{"file:../../x": b""})),
            "INVALID_ARGUMENT",
            "load parameter 'file:../../x'",
        ),
        (
            lambda s: s.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name="r", model_name="off")),
            "UNIMPLEMENTED",
            "'repository_name' specification is not supported",
        ),
        (
            lambda s: s.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="r")),
            "UNIMPLEMENTED",
            "'repository_name' specification is not supported",
        ),
        (
            lambda s: s.RepositoryModelUnload(
                pb.RepositoryModelUnloadRequest(model_name="off", parameters={"now": {"bool_param": True}})
            ),
            "INVALID_ARGUMENT",
            "Unrecognized unload parameter 'now'",
        ),
    ],
)
async def test_errors_have_tritons_words_and_a_code_that_fits(repository, serving, connect, call, code, says) -> None:
    put_plain(repository, "junk", b"junk")
    publish_affine(repository, "off", goldens=goldens_for(affine_model(), shift=1e-3))
    async with serving(repository, **EXPLICIT) as server, connect(server) as stubs:
        got, details = await failure(call(stubs.inference))
    assert (got, says in details) == (code, True), details


@pytest.mark.parametrize("wanted", [[77], [1, 77], [2], [2, 77]])
async def test_a_load_whose_policy_cannot_be_kept_is_refused_and_the_old_policy_stays(
    repository, serving, connect, wanted
) -> None:
    """Version 2 is refused, and 77 is not there."""
    publish_affine(repository)
    publish_affine(repository, goldens=goldens_for(affine_model(), shift=1e-3))
    config = json.dumps({"version_policy": {"specific": {"versions": wanted}}})
    one = json.dumps({"version_policy": {"specific": {"versions": [1]}}})
    async with serving(repository, **EXPLICIT) as server, connect(server) as stubs:
        inference = stubs.inference
        is_gate = wanted == [2]
        code, says = await failure(inference.RepositoryModelLoad(load_request("affine", config=config)))
        assert code == ("FAILED_PRECONDITION" if is_gate else "INTERNAL")
        assert is_gate or says == (
            f"failed to load 'affine', no version 77 is there, which the policy specific:{','.join(map(str, wanted))} "
            "asks for; there is 1, 2"
        )
        await inference.RepositoryModelLoad(load_request("affine", config=one))
        code, says = await failure(inference.RepositoryModelLoad(load_request("affine", config=config)))
        assert code == ("FAILED_PRECONDITION" if is_gate else "INTERNAL")
        assert says.endswith("; version 1 goes on serving")
        described = (await inference.ModelConfig(pb.ModelConfigRequest(name="affine"))).config
        assert list(described.version_policy.specific.versions) == [1]
        assert (await inference.ModelInfer(affine_request())).model_version == "1"


@pytest.mark.parametrize("mode", ["none", "poll"])
@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.RepositoryModelLoad(load_request("affine", speed="9")),
        lambda s: s.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="affine")),
    ],
)
async def test_without_explicit_mode_requests_are_told_so(repository, serving, connect, mode, call) -> None:
    publish_affine(repository)
    async with serving(repository, model_control_mode=mode) as server, connect(server) as stubs:
        code, details = await failure(call(stubs.inference))
        assert (await stubs.inference.ModelInfer(affine_request())).model_version == "1"
    assert code == "UNAVAILABLE"
    assert details.startswith("explicit model load / unload is not allowed if polling is enabled")


async def test_the_extensions_are_reported(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        extensions = (await stubs.inference.ServerMetadata(pb.ServerMetadataRequest())).extensions
    assert {"model_repository", "model_repository(unload_dependents)"} <= set(extensions)
