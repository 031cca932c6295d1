from __future__ import annotations

from models.artifact.published_run import RUN_KEY, find
from tests.conftest import publish_affine, put_plain


def test_the_version_of_a_run_is_found_among_others(repository) -> None:
    assert find(repository, "affine", "r1") is None
    publish_affine(repository, provenance={RUN_KEY: "r1"})
    publish_affine(repository, provenance={RUN_KEY: "r2"})
    publish_affine(repository)
    publish_affine(repository, "other", provenance={RUN_KEY: "r3"})
    found = find(repository, "affine", "r1")
    assert found is not None
    assert found.version == 1
    assert find(repository, "affine", "r3") is None


def test_what_is_no_published_run_is_passed_over(repository) -> None:
    publish_affine(repository, provenance={RUN_KEY: "r1"})
    put_plain(repository, "affine", b"model", version=2)
    damaged = publish_affine(repository, provenance={RUN_KEY: "r1"})
    (damaged / "manifest.json").write_text("{")
    (repository / "affine" / ".publishing-1").mkdir()
    found = find(repository, "affine", "r1")
    assert found is not None
    assert found.version == 1
