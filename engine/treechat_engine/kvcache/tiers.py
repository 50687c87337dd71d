"""The tiers below the device: the host pool, and files in a directory.

Each eviction copies its leaves to the host in one operation: `make_room`, then the tree's eviction, then `offload`.
Files are read-only here. Each holds a segment of a path, and its rows are numbered like slots.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable

import torch

from treechat_engine.kvcache.disk import MAX_SEGMENT_LEN, DamagedError, KVFile
from treechat_engine.kvcache.host import HostPool, PoolRows
from treechat_engine.kvcache.radix import RadixTree
from treechat_engine.kvcache.radix_node import DEVICE, DISK, HOST, Freed, Ints, RadixNode, Ranking
from treechat_engine.kvcache.slots import SlotPool

logger = logging.getLogger(__name__)


class LowerTiers:
    """Host pool and files below a device pool. host_slots 0: no host pool."""

    def __init__(self, pool: SlotPool, host_slots: int = 0) -> None:
        self.rows = PoolRows(pool)
        self.host = HostPool(self.rows, host_slots, pool.poison) if host_slots else None
        self._files: list[KVFile] = []
        self._num_rows = 0
        self._demoted: tuple[Ints, Ints] = (array("q"), array("q"))
        self._damaged_node: RadixNode | None = None
        # Names of the files whose rows did not match their hash.
        self.damaged_files: set[str] = set()

    def make_room(self, tree: RadixTree, n: int, ranking: Ranking) -> Callable[[Ints], Ints] | None:
        """Make room on the host for `n` tokens, or for as many as it can hold.

        Returns the `demote` function for `RadixTree.evict`; None without a host tier.

        tree: drops host tokens to make room.
        n: tokens.
        ranking: the lowest rank is dropped first.
        """
        host = self.host
        if host is None:
            return None
        missing = min(n, host.num_slots) - host.num_free
        if missing > 0:
            self.free(tree.evict(missing, ranking, HOST))
        return self._demote

    def offload(self) -> None:
        """Copy the demoted slots to the host. Call it before their device slots are freed."""
        device, host = self._demoted
        if device and self.host is not None:
            self.host.store(device, host)
            self._demoted = (array("q"), array("q"))

    def restore(self, node: RadixNode, slots: Ints) -> bool:
        """Copy the KV of a node of a lower tier to `slots` of the device. Returns False if its file is damaged or
        missing.
        """
        if node.tier == HOST:
            assert self.host is not None, f"{node!r} without a host pool"
            self.host.load(node.slots, slots)
            return True
        try:
            rows = self._read_files(node.slots)
        except DamagedError as error:
            logger.warning("cached KV is skipped: %s", error)
            self._damaged_node = node
            return False
        self.rows.scatter(slots, rows.to(self.rows.device))
        return True

    def take_damaged(self) -> RadixNode | None:
        """Return the node that `restore` could not read, and forget it."""
        node, self._damaged_node = self._damaged_node, None
        return node

    def read(self, tier: int, slots: Ints) -> torch.Tensor:
        """Return rows [n, width] of a tier on the CPU. Raises DamagedError."""
        if tier == DEVICE:
            return self.rows.gather(slots).cpu()
        if tier == HOST:
            assert self.host is not None, "rows of a host pool that is not there"
            return self.host.read(slots)
        return self._read_files(slots)

    def is_sound(self, node: RadixNode) -> bool:
        """Return whether all KV of a node is finite. KV in files is checked when it is read."""
        parts = range(0, len(node.slots), MAX_SEGMENT_LEN) if node.tier != DISK else ()
        return all(bool(self.read(node.tier, node.slots[i : i + MAX_SEGMENT_LEN]).isfinite().all()) for i in parts)

    def free(self, freed: Freed) -> None:
        """Free the slots of lower tiers. The caller frees those of the device."""
        self.free_in(HOST, freed[HOST])

    def free_in(self, tier: int, slots: Ints) -> None:
        """Free slots of one lower tier. The rows of files stay."""
        if tier == HOST and slots:
            assert self.host is not None, f"{len(slots)} host slots without a host pool"
            self.host.free(slots)

    def add_file(self, file: KVFile) -> Ints:
        """Assign numbers to the rows of a file."""
        first = self._num_rows
        self._num_rows += file.num_tokens
        self._files.append(file)
        file.first_row = first
        return array("q", range(first, self._num_rows))

    def check(self, tree: RadixTree) -> None:
        """Assert that the free and the cached rows are all rows of the host pool, and none twice."""
        if self.host is None:
            assert tree.num_in(HOST) == 0, f"{tree.num_in(HOST)} tokens on a host without a pool"
            return
        self.host.check()
        slots = [slot for start, length in self.host.free_extents() for slot in range(start, start + length)]
        for node in tree.nodes():
            if node.tier == HOST:
                slots.extend(node.slots)
        assert sorted(slots) == list(range(self.host.num_slots)), (
            f"{len(slots)} host slots accounted for, {self.host.num_slots} in all"
        )

    def _demote(self, slots: Ints) -> Ints:
        """Return host slots for the first of these slots, as many as are free."""
        assert self.host is not None, "no host pool to demote to"
        taken = self.host.allocate(min(len(slots), self.host.num_free))
        self._demoted[0].extend(slots[: len(taken)])
        self._demoted[1].extend(taken)
        return taken

    def _read_files(self, slots: Ints) -> torch.Tensor:
        """Return rows of files by number. The rows of one node are in few files. Raises DamagedError."""
        parts: list[torch.Tensor] = []
        at = 0
        for file in self._files:
            stop = file.first_row + file.num_tokens
            start = at
            while at < len(slots) and file.first_row <= slots[at] < stop:
                at += 1
            if at > start:
                parts.append(self._read(file)[slots[start] - file.first_row : slots[at - 1] - file.first_row + 1])
        assert at == len(slots), f"{len(slots) - at} rows are in no file"
        return torch.cat(parts)

    def _read(self, file: KVFile) -> torch.Tensor:
        try:
            return file.read()
        except DamagedError:
            self.damaged_files.add(file.path.name)
            raise
