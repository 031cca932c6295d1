"""The page as a scraper gets it from a server that has done something."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from service.repository.model_version import Cause
from tests.conftest import affine_model, goldens_for, publish_affine, put_plain
from tests.scraping import read, samples, scrape
from tests.service.conftest import affine_request

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


def of(name: str, version: int = 1, **labels: str) -> tuple:
    return tuple(sorted({"model": name, "version": str(version), **labels}.items()))


async def test_what_was_asked_is_what_is_counted(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        for batch in (1, 3, 64):
            await stubs.inference.ModelInfer(affine_request(batch=batch))
        wrong = affine_request()
        wrong.inputs[0].shape[1] = 4
        with pytest.raises(grpc.aio.AioRpcError):
            await stubs.inference.ModelInfer(wrong)
        found = samples(await scrape(server))
    labels = of("affine")
    assert found["nv_inference_request_success", *labels] == 3
    assert found["nv_inference_count", *labels] == 68
    assert found["nv_inference_exec_count", *labels] == 3
    assert found["nv_inference_pending_request_count", *labels] == 0
    failures = {reason: found["nv_inference_request_failure", *of("affine", reason=reason)]
                for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")}  # fmt: skip
    assert failures == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 1}
    parts = [found[f"nv_inference_{part}_duration_us", *labels]
             for part in ("queue", "compute_input", "compute_infer", "compute_output")]  # fmt: skip
    assert 0 < sum(parts) <= found["nv_inference_request_duration_us", *labels] + len(parts)
    buckets = [found["mnist1d_batch_size_bucket", *of("affine", le=le)] for le in ("1.0", "2.0", "4.0", "64.0", "+Inf")]
    assert buckets == [1, 1, 2, 3, 3]
    assert found["mnist1d_batch_size_sum", *labels] == 68
    infer = "inference.GRPCInferenceService/ModelInfer"
    for code, count in (("OK", 3), ("INVALID_ARGUMENT", 1)):
        assert found["mnist1d_request_duration_seconds_count", ("code", code), ("method", infer)] == count
    assert found["mnist1d_requests_in_flight",] == 0
    assert found["mnist1d_server_ready",] == 1


async def test_each_version_shows_its_state_and_its_proof(repository, serving) -> None:
    publish_affine(repository)
    publish_affine(repository, goldens=goldens_for(affine_model(), shift=1e-3))
    put_plain(repository, "plain", affine_model())
    async with serving(repository) as server:
        found = samples(await scrape(server))
    assert found["mnist1d_model_state", *of("affine", 1, state="READY", reason="NONE")] == 1
    assert found["mnist1d_model_state", *of("affine", 2, state="UNAVAILABLE", reason="GOLDEN_MISMATCH")] == 1
    assert found["mnist1d_model_state", *of("plain", 1, state="READY", reason="UNPROVEN")] == 1
    assert [found["mnist1d_model_ready", *of(*which)] for which in (("affine", 1), ("affine", 2), ("plain", 1))] == [
        1,
        0,
        1,
    ]
    proofs = {
        which: [found["mnist1d_model_proof", *of(*which, state=state)] for state in ("proven", "unproven", "refused")]
        for which in (("affine", 1), ("affine", 2), ("plain", 1))
    }
    assert proofs == {("affine", 1): [1, 0, 0], ("affine", 2): [0, 0, 1], ("plain", 1): [0, 1, 0]}
    assert found["mnist1d_proof_max_difference", *of("affine", 1)] == 0
    assert ("mnist1d_proof_max_difference", *of("plain", 1)) not in found


async def test_a_model_whose_settings_are_refused_is_a_problem(repository, serving) -> None:
    publish_affine(repository)
    publish_affine(repository, "odd")
    (repository / "odd" / "model.json").write_text("{")
    async with serving(repository) as server:
        found = samples(await scrape(server))
    assert found["mnist1d_model_problem", ("model", "affine")] == 0
    assert found["mnist1d_model_problem", ("model", "odd")] == 1


def test_every_cause_is_explained_in_the_document() -> None:
    document = DOCUMENT.read_text()
    assert [cause.value for cause in Cause if f"{cause.value}" not in document] == []
    harmless = re.search(r'reason!~"([A-Z_|]+)"', document)[1].split("|")
    assert {cause.value for cause in Cause if not cause.is_refusal} == set(harmless)


async def test_both_formats_say_the_same(repository, serving) -> None:
    publish_affine(repository)
    async with serving(repository) as server:
        plain, open_metrics = await scrape(server), await scrape(server, "application/openmetrics-text")
    assert {sample.name for sample in read(plain)} == {
        sample.name for family in parse_openmetrics(open_metrics) for sample in family.samples
    }


async def test_the_document_lists_what_is_exported(repository, serving, fake_training) -> None:
    publish_affine(repository)
    async with serving(repository, training_slots=1) as server:
        page = await scrape(server)
    exported = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    listed = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE))
    assert listed == exported


async def test_the_rules_of_the_document_ask_for_metrics_and_labels_that_exist(
    repository, serving, connect, fake_training
) -> None:
    publish_affine(repository)
    async with serving(repository, training_slots=1) as server, connect(server) as stubs:
        await stubs.inference.ModelInfer(affine_request())
        page = await scrape(server)
    known = {sample.name: set(sample.labels) for sample in read(page)}
    asked = re.findall(r"(?<!job_name: )\b((?:mnist1d|nv|process)_\w+)(?:\{(\w+)=)?", DOCUMENT.read_text())
    assert len(asked) > 20
    for name, label in asked:
        if name not in known:
            assert f"{name}_count" in known, name  # a histogram, named as a whole
        elif label:
            assert label in known[name], (name, label)


async def test_training_is_counted_where_it_is_offered(repository, serving, fake_training) -> None:
    async with serving(repository, training_slots=3) as server:
        async with asyncio.timeout(30):
            while (found := samples(await scrape(server)))["mnist1d_training_slots",] == 0:  # noqa: ASYNC110 - a page has no event
                await asyncio.sleep(0.02)  # it does not lead yet
        assert found["mnist1d_training_runs", ("state", "QUEUED")] == 0
        ended = ("outcome", "FAILED"), ("reason", "PROOF_FAILED")
        assert found["mnist1d_training_runs_finished_total", *ended] == 0
    async with serving(repository) as server:
        assert "mnist1d_training" not in await scrape(server)


async def test_no_metrics_means_no_port(repository, serving) -> None:
    publish_affine(repository)
    async with serving(repository, metrics=False) as server:
        assert server.metrics_url is None


async def test_metrics_are_there_while_models_load_and_say_not_ready(repository, serving, monkeypatch) -> None:
    publish_affine(repository)
    async with serving(repository) as server:
        server.readiness.start_draining()
        found = samples(await scrape(server))
        assert found["mnist1d_server_ready",] == 0
        assert found["mnist1d_model_ready", *of("affine")] == 1


async def test_a_scrape_during_load_harms_no_request(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        pages, answers = await asyncio.gather(
            asyncio.gather(*(scrape(server) for _ in range(20))),
            asyncio.gather(*(stubs.inference.ModelInfer(affine_request()) for _ in range(200))),
        )
        last = samples(await scrape(server))
    assert all(np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [3, 3, 3] for answer in answers)
    assert all(page.startswith("# HELP") for page in pages)
    assert last["nv_inference_request_success", *of("affine")] == 200
