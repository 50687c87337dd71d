"""The tables of a ragged batch: where each path's slots and new tokens begin. Built once per step, in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch

# Tokens. The kernels cut every path at multiples of this length, so a path's result does not depend on the rest of the
# batch. On an H100 with 8,192 tokens and 2 key heads, 128 took two thirds of the time of 256; with 8 key heads, or with
# 32,768 tokens, both took the same time.
SPLIT_LEN = 128


# Slots side by side: (first slot, length).
Extent: TypeAlias = tuple[int, int]


class Paths(NamedTuple):
    """Some sequences of the batch.

    indices: [n] int64 on the device, their places in the batch.
    num: how many they are (n).
    max_q_len: the most new tokens of any of them.
    max_kv_len: the length of the longest path.
    """

    indices: torch.Tensor
    num: int
    max_q_len: int
    max_kv_len: int


class SharedPrefix(NamedTuple):
    """Decoding sequences whose first tokens lie in the same slots.

    paths: the sequences.
    prefix_len: tokens in the same slots, a multiple of SPLIT_LEN and not 0.
    num_splits: [1] int64 on the device, prefix_len in splits; it may change between replays of a graph.
    is_whole: the sequences have no other slots, and each sees only its first kv_len of them.
    """

    paths: Paths
    prefix_len: int
    num_splits: torch.Tensor
    is_whole: bool = False


@dataclass(frozen=True)
class Layout:
    """A packed batch of B sequences. Tensors are int64 on the device.

    kv_lens, q_lens: as in `attention_reference`.
    kv_starts, q_starts: [B + 1], where each sequence's slots and new tokens begin.
    kv_len_table: [B], kv_lens on the device.
    no_splits: [1], a zero.
    single: the sequences with one new token.
    several: the sequences with more than one new token.
    unshared: the sequences of `single` that share no prefix.
    shared: the groups of `single` that read a prefix together.
    """

    kv_lens: tuple[int, ...]
    q_lens: tuple[int, ...]
    kv_starts: torch.Tensor
    q_starts: torch.Tensor
    kv_len_table: torch.Tensor
    no_splits: torch.Tensor
    single: Paths
    several: Paths
    unshared: Paths
    shared: tuple[SharedPrefix, ...]

    @classmethod
    def build(
        cls,
        kv_lens: Sequence[int],
        q_lens: Sequence[int],
        device: torch.device | str,
        prefixes: Sequence[tuple[Sequence[int], int]] = (),
    ) -> Layout:
        """Build the tables of a batch.

        kv_lens, q_lens: tokens of each path and new tokens of each path.
        device: where the tables go.
        prefixes: groups from `shared_prefixes`: (indices of sequences with one new token, tokens that they share).
        """
        assert len(kv_lens) == len(q_lens), f"{len(kv_lens)} paths, {len(q_lens)} lists of new tokens"
        assert all(0 < q <= kv for q, kv in zip(q_lens, kv_lens, strict=True)), f"{q_lens} new of {kv_lens} tokens"
        single = [i for i, q_len in enumerate(q_lens) if q_len == 1]
        several = [i for i, q_len in enumerate(q_lens) if q_len > 1]
        whole = [(list(group), length // SPLIT_LEN * SPLIT_LEN) for group, length in prefixes if length >= SPLIT_LEN]
        together = {i for group, _ in whole for i in group}
        unshared = [i for i in single if i not in together]
        sizes = [[length // SPLIT_LEN] for _, length in whole]
        groups = [group for group, _ in whole]
        tables = [_starts(kv_lens), _starts(q_lens), kv_lens, [0], single, several, unshared, *groups, *sizes]
        on_device = _to_device(tables, device)

        def paths(indices: list[int], table: torch.Tensor) -> Paths:
            longest_q, longest_kv = (max((lens[i] for i in indices), default=0) for lens in (q_lens, kv_lens))
            return Paths(table, len(indices), longest_q, longest_kv)

        shared = tuple(
            SharedPrefix(paths(group, table), length, size)
            for (group, length), table, size in zip(
                whole, on_device[7 : 7 + len(whole)], on_device[7 + len(whole) :], strict=True
            )
        )
        return cls(
            tuple(kv_lens),
            tuple(q_lens),
            on_device[0],
            on_device[1],
            on_device[2],
            on_device[3],
            paths(single, on_device[4]),
            paths(several, on_device[5]),
            paths(unshared, on_device[6]),
            shared,
        )

    @classmethod
    def of_tables(
        cls, kv_starts: torch.Tensor, kv_len_table: torch.Tensor, max_kv_len: int, shared_splits: torch.Tensor | None
    ) -> Layout:
        """Return the layout of B sequences with one new token each, for a graph.

        Each launch reads the tensors on the device.

        kv_starts: [B + 1], where each sequence's slots begin.
        kv_len_table: [B], the lengths.
        max_kv_len: no length exceeds it.
        shared_splits: [1], the number of splits that all sequences share; None if they share no prefix.
        """
        num, device = kv_len_table.shape[0], kv_len_table.device
        all_paths = Paths(torch.arange(num, device=device), num, 1, max_kv_len)
        none = Paths(all_paths.indices[:0], 0, 0, 0)
        shared = () if shared_splits is None else (SharedPrefix(all_paths, max_kv_len, shared_splits),)
        return cls(
            (max_kv_len,) * num,
            (1,) * num,
            kv_starts,
            torch.arange(num + 1, device=device),
            kv_len_table,
            torch.zeros(1, dtype=torch.int64, device=device),
            all_paths,
            none,
            none if shared else all_paths,
            shared,
        )

    @classmethod
    def of_new_tokens(
        cls, kv_len_table: torch.Tensor, q_starts: torch.Tensor, max_q_len: int, max_kv_len: int
    ) -> Layout:
        """Return the layout of one sequence of up to max_q_len new tokens, for a graph.

        Each launch reads kv_len_table [1] and q_starts [2] on the device.
        """
        zero = torch.zeros(1, dtype=torch.int64, device=kv_len_table.device)
        none = Paths(zero[:0], 0, 0, 0)
        several = Paths(zero, 1, max_q_len, max_kv_len)
        starts = torch.zeros(2, dtype=torch.int64, device=zero.device)
        return cls((max_kv_len,), (max_q_len,), starts, q_starts, kv_len_table, zero, none, several, none, ())

    @classmethod
    def of_few_new_tokens(cls, kv_len_table: torch.Tensor, num_splits: torch.Tensor, max_kv_len: int) -> Layout:
        """Return the layout of a few new tokens of one path, as T sequences of one token over the same slots.

        So the kernels split the path over its length, which a few tokens over a long path need.

        kv_len_table: [T], how many of the slots each token sees.
        num_splits: [1], the splits of the longest.
        max_kv_len: no length exceeds it.
        """
        num, device = kv_len_table.shape[0], kv_len_table.device
        paths = Paths(torch.arange(num, device=device), num, 1, max_kv_len)
        none = Paths(paths.indices[:0], 0, 0, 0)
        starts = torch.zeros(num + 1, dtype=torch.int64, device=device)
        whole = SharedPrefix(paths, max_kv_len, num_splits, is_whole=True)
        q_starts = torch.arange(num + 1, device=device)
        return cls(
            (max_kv_len,) * num, (1,) * num, starts, q_starts, kv_len_table, starts[:1], paths, none, none, (whole,)
        )


def shared_prefixes(
    extents: Sequence[Sequence[Extent]], kv_lens: Sequence[int], q_lens: Sequence[int]
) -> list[tuple[list[int], int]]:
    """Return groups of two or more sequences with one new token whose paths begin in the same slots.

    Each group is (indices, number of tokens that all of them share). Its sequences need not be neighbours in the batch.

    extents: the extents of each sequence's path, in order.
    kv_lens, q_lens: tokens and new tokens of each sequence.
    """
    by_first: dict[int, list[int]] = {}
    for i, q_len in enumerate(q_lens):
        if q_len == 1:
            by_first.setdefault(extents[i][0][0], []).append(i)
    groups = []
    for group in by_first.values():
        if len(group) > 1:
            length = min(kv_lens[i] for i in group)
            for i in group[1:]:
                length = min(length, _common_len(extents[group[0]], extents[i]))
            groups.append((group, length))
    return groups


def _common_len(a: Sequence[Extent], b: Sequence[Extent]) -> int:
    """Return how many tokens from the start lie in the same slots. The extents may be cut at different places."""
    total = i = j = done_a = done_b = 0
    while i < len(a) and j < len(b) and a[i][0] + done_a == b[j][0] + done_b:
        step = min(a[i][1] - done_a, b[j][1] - done_b)
        total, done_a, done_b = total + step, done_a + step, done_b + step
        if done_a == a[i][1]:
            i, done_a = i + 1, 0
        if done_b == b[j][1]:
            j, done_b = j + 1, 0
    return total


def _starts(lens: Sequence[int]) -> list[int]:
    starts = [0]
    for length in lens:
        starts.append(starts[-1] + length)
    return starts


def _to_device(tables: Sequence[Sequence[int]], device: torch.device | str) -> list[torch.Tensor]:
    """Return the tables as int64 tensors, moved to the device in one copy."""
    packed = torch.tensor([each for table in tables for each in table], dtype=torch.int64)
    if torch.device(device).type == "cuda":
        packed = packed.pin_memory().to(device, non_blocking=True)
    return list(torch.split(packed.to(device), [len(table) for table in tables]))
