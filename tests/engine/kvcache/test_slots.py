"""The slot pool: where slots are placed, and that no slot is allocated twice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treechat_engine.kvcache.slots import OutOfSlots, SlotPool, extents_of, slot_bytes

SHAPES = [(1, 2, 3), (2, 4, 4)]


def make_pool(num_slots: int, poison: bool = True) -> SlotPool:
    return SlotPool(num_slots, SHAPES, torch.float32, "cpu", poison=poison)


def test_every_layer_has_its_own_shape_and_a_dummy_row_at_the_end() -> None:
    pool = make_pool(8)
    assert [tuple(t.shape) for t in pool.k] == [(9, 1, 2), (9, 2, 4)]
    assert [tuple(t.shape) for t in pool.v] == [(9, 1, 3), (9, 2, 4)]
    assert pool.dummy == 8 and pool.k[0][pool.dummy].isfinite().all()
    assert pool.dummy not in pool.allocate(8)
    assert slot_bytes(SHAPES, torch.float32) == (2 + 3 + 8 + 8) * 4


def test_asking_for_more_than_is_free_raises_and_changes_nothing() -> None:
    pool = make_pool(8)
    pool.allocate(5)
    with pytest.raises(OutOfSlots, match="4 slots requested, 3 of 8 free"):
        pool.allocate(4)
    assert pool.num_free == 3
    pool.check()


def test_freeing_a_slot_twice_is_refused() -> None:
    pool = make_pool(8)
    slots = pool.allocate(4)
    pool.free(slots)
    with pytest.raises(AssertionError, match="free already"):
        pool.free(slots[:1])
    taken = pool.allocate(2)
    with pytest.raises(AssertionError, match="free already"):
        pool.free([taken[0], taken[0]])


def test_freed_rows_hold_nan_and_the_rows_beside_them_do_not() -> None:
    pool = make_pool(8)
    slots = pool.allocate(6)
    for rows in (*pool.k, *pool.v):
        rows[slots] = 1.0
    pool.free(slots[2:4])
    for rows in (*pool.k, *pool.v):
        assert rows[slots[2:4]].isnan().all()
        assert rows[slots[:2] + slots[4:]].eq(1.0).all()
    pool.check()
    pool.k[1][slots[2]] = 0.0
    with pytest.raises(AssertionError, match="was written"):
        pool.check()


def test_a_branch_that_grows_token_by_token_stays_one_extent() -> None:
    pool = make_pool(1024, poison=False)
    branches = [pool.allocate(10) for _ in range(5)]
    for _ in range(20):
        for branch in branches:
            branch.extend(pool.allocate(1, last_slot=branch[-1]))
    assert [len(extents_of(branch)) for branch in branches] == [1] * 5
    pool.check()


def test_a_gap_never_splits_a_request_that_fits_one_extent() -> None:
    pool = make_pool(256, poison=False)
    first = pool.allocate(10)
    rest = pool.allocate(100, room=146)
    rest += pool.allocate(146, last_slot=rest[-1])
    assert len(extents_of(rest)) == 1
    assert sorted(first + rest) == list(range(256))


def test_a_request_larger_than_any_extent_takes_the_largest_ones() -> None:
    pool = make_pool(64, poison=False)
    everything = pool.allocate(64)
    pool.free(everything[0:4] + everything[10:30] + everything[40:45])
    assert extents_of(pool.allocate(25)) == [(10, 20), (40, 5)]
    assert pool.allocate(4).tolist() == [0, 1, 2, 3]


def test_growth_continues_after_its_last_slot_before_it_starts_elsewhere() -> None:
    pool = make_pool(64, poison=False)
    everything = pool.allocate(64)
    pool.free(everything[5:8] + everything[30:60])
    assert extents_of(pool.allocate(5, last_slot=4))[0] == (5, 3)


def test_extents_are_maximal_and_keep_the_order_of_the_path() -> None:
    assert extents_of([]) == []
    assert extents_of([7]) == [(7, 1)]
    assert extents_of([5, 6, 7, 3, 2, 3, 4, 9]) == [(5, 3), (3, 1), (2, 3), (9, 1)]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_slot_is_allocated_twice_and_every_slot_is_freed(data: st.DataObject) -> None:
    pool, held = make_pool(97), []
    for _ in range(data.draw(st.integers(1, 30))):
        if held and data.draw(st.booleans()):
            slots = held.pop(data.draw(st.integers(0, len(held) - 1)))
            kept = data.draw(st.integers(0, len(slots)))
            pool.free(slots[kept:][::-1])
            held.append(slots[:kept])
        else:
            n = data.draw(st.integers(0, pool.num_free))
            after = data.draw(st.sampled_from([slots[-1] for slots in held if slots] or [None]))
            held.append(pool.allocate(n, after, room=data.draw(st.integers(0, 50))))
        taken = [slot for slots in held for slot in slots]
        assert len(taken) == len(set(taken)) == 97 - pool.num_free
        pool.check()
    for slots in held:
        pool.free(slots)
    assert pool.free_extents() == [(0, 97)]
