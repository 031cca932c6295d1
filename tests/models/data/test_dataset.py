from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.data.dataset import (
    CANONICAL_SHA256,
    MEAN,
    STD,
    Dataset,
    Examples,
    array_sha256,
    canonical,
    check_canonical,
    fresh,
    split,
)
from models.errors import DatasetError


def test_canonical_is_the_published_data_bit_for_bit():
    data = canonical()

    assert dict(data.sha256) == dict(CANONICAL_SHA256)
    assert array_sha256(data.train.x_BL) == CANONICAL_SHA256["train_x"]
    assert array_sha256(data.test.y_B) == CANONICAL_SHA256["test_y"]
    assert data.train.x_BL.shape == (4000, 40)
    assert data.test.x_BL.shape == (1000, 40)
    assert data.train.x_BL.dtype == np.float32
    assert data.train.y_B.dtype == np.int64


def test_canonical_classes_are_nearly_balanced():
    counts = np.bincount(canonical().train.y_B)

    assert (counts.min(), counts.max()) == (394, 411)


def test_normalisation_constants_are_those_of_the_set():
    everything = np.concatenate([canonical().train.x_BL, canonical().test.x_BL]).astype(np.float64)

    assert abs(everything.mean()) < 1e-6
    assert abs(everything.std() - 1) < 1e-6
    assert pytest.approx(-0.00550751, abs=1e-8) == MEAN
    assert pytest.approx(0.15467803, abs=1e-8) == STD


@pytest.mark.slow
def test_canonical_equals_the_reference_package(monkeypatch):
    mnist1d_data = pytest.importorskip("mnist1d.data", reason="the public reference, for development only")
    state = np.random.get_state()
    try:
        reference = mnist1d_data.make_dataset()  # reseeds the global generator
    finally:
        np.random.set_state(state)
    data = canonical()

    assert np.array_equal(data.train.x_BL, reference["x"].astype(np.float32))
    assert np.array_equal(data.train.y_B, reference["y"])
    assert np.array_equal(data.test.x_BL, reference["x_test"].astype(np.float32))
    assert np.array_equal(data.test.y_B, reference["y_test"])


def test_canonical_arrays_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        canonical().train.x_BL[0, 0] = 1


@pytest.mark.parametrize("name", list(CANONICAL_SHA256))
def test_a_changed_array_is_named_with_both_hashes(name):
    data = canonical()
    changed = dataclasses.replace(data, sha256={**data.sha256, name: "0" * 64})

    with pytest.raises(DatasetError) as caught:
        check_canonical(changed)

    assert name in str(caught.value)
    assert CANONICAL_SHA256[name] in str(caught.value)
    assert "0" * 64 in str(caught.value)


def test_one_changed_bit_changes_the_hash():
    data = canonical()
    x_BL = data.train.x_BL.copy()
    x_BL[17, 3] = np.nextafter(x_BL[17, 3], np.float32(np.inf))

    with pytest.raises(DatasetError, match="train_x"):
        check_canonical(Dataset.of(Examples(x_BL, data.train.y_B), data.test))


def test_hash_does_not_depend_on_byte_order_or_memory_layout():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)

    assert array_sha256(array) == array_sha256(array.astype(">f4"))
    assert array_sha256(array) == array_sha256(np.asfortranarray(array))


def test_fresh_is_reproducible_and_leaves_the_global_generator_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first, again, other = fresh(50, seed=1), fresh(50, seed=1), fresh(50, seed=2)

    assert np.array_equal(np.random.get_state()[1], before)
    assert np.array_equal(first.x_BL, again.x_BL)
    assert np.array_equal(first.y_B, again.y_B)
    assert not np.array_equal(first.x_BL, other.x_BL)


@pytest.mark.parametrize("count", [1, 7, 10, 103, 10_000, 10_001, 25_003])
def test_fresh_gives_as_many_as_asked_in_balanced_shuffled_classes(count):
    examples = fresh(count, seed=0)
    counts = np.bincount(examples.y_B, minlength=10)

    assert examples.x_BL.shape == (count, 40)
    assert np.isfinite(examples.x_BL).all()
    assert counts.max() - counts.min() <= 1
    assert count < 100 or not np.array_equal(examples.y_B, np.sort(examples.y_B))


def test_fresh_has_the_distribution_of_the_canonical_set():
    examples, reference = fresh(20_000, seed=5), canonical().train

    assert abs(float(examples.x_BL.mean())) < 0.02
    assert abs(float(examples.x_BL.std()) - 1) < 0.02
    for digit in range(10):
        ours = examples.x_BL[examples.y_B == digit]
        theirs = reference.x_BL[reference.y_B == digit]
        standard_error = theirs.std(axis=0) / np.sqrt(len(theirs))
        assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 5 * standard_error).all()
        assert np.allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.25)


def test_canonical_examples_are_not_among_the_fresh_ones():
    assert not np.isin(fresh(1_000, seed=42).x_BL[:, 0], canonical().test.x_BL[:, 0]).all()


@pytest.mark.parametrize(
    ("count", "seed", "message"),
    [(0, 0, "count must be at least 1, got 0"), (-5, 0, "count"), (5, -1, "seed must be at least 0, got -1")],
)
def test_fresh_refuses_bad_arguments(count, seed, message):
    with pytest.raises(ValueError, match=message):
        fresh(count, seed)


def test_take_keeps_signals_and_digits_together():
    examples = canonical().test
    taken = examples.take([5, 0, 5])

    assert len(taken) == 3
    assert np.array_equal(taken.x_BL, examples.x_BL[[5, 0, 5]])
    assert np.array_equal(taken.y_B, examples.y_B[[5, 0, 5]])
    assert len(examples.take([])) == 0
    with pytest.raises(IndexError):
        examples.take([1000])


@pytest.mark.parametrize(
    ("x_BL", "y_B", "message"),
    [
        (np.zeros((2, 40)), np.zeros(2, np.int64), "float32"),
        (np.zeros((2, 39), np.float32), np.zeros(2, np.int64), "40"),
        (np.zeros(40, np.float32), np.zeros(1, np.int64), "40"),
        (np.zeros((2, 40), np.float32), np.zeros(3, np.int64), r"\(2,\)"),
        (np.zeros((2, 40), np.float32), np.zeros(2, np.int32), "int64"),
    ],
)
def test_examples_of_another_shape_or_dtype_are_refused(x_BL, y_B, message):
    with pytest.raises(ValueError, match=message):
        Examples(x_BL, y_B)


@pytest.mark.parametrize("validation", [0, 1, 9, 500, 777, 3999])
def test_split_is_a_stratified_partition(validation):
    examples = canonical().train
    remaining, held_out = split(examples, validation, seed=3)

    assert (len(remaining), len(held_out)) == (4000 - validation, validation)
    together = np.sort(np.concatenate([remaining.x_BL, held_out.x_BL])[:, 0])
    assert np.array_equal(together, np.sort(examples.x_BL[:, 0]))
    share = np.bincount(examples.y_B) * validation / 4000
    assert np.abs(np.bincount(held_out.y_B, minlength=10) - share).max() < 1


def test_split_depends_on_its_seed_only():
    examples = canonical().train
    (_, first), (_, again), (_, other) = (split(examples, 500, seed) for seed in (1, 1, 2))

    assert np.array_equal(first.x_BL, again.x_BL)
    assert not np.array_equal(first.x_BL, other.x_BL)


@pytest.mark.parametrize("validation", [-1, 4000, 5000])
def test_split_refuses_counts_that_leave_nothing(validation):
    with pytest.raises(ValueError, match=f"below 4000, got {validation}"):
        split(canonical().train, validation, seed=0)
