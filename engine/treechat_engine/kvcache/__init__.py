"""The cache: radix tree, slot pool, leases, eviction, host and disk tiers.

The tiers share one tree. A path is on the device first, then on the host or in files, then not cached; a token is in
one tier only. `Residency.host` and `restored_tokens` count host and files together.

Operations of the tree in microseconds, beside SGLang 0.5.23's Python and Rust trees (page size 1) on the same kind of
machine on another day (AMD EPYC, 2 cores, Python 3.11; `python -m tests.bench.radix`):

| work | ours | Python | Rust |
| --- | --- | --- | --- |
| insert a new 100,000-token path | 12 | 313 | 709 |
| match a 100,000-token path in one node | 58 | 157 | 135 |
| match, splitting at 50,000 | 255 (the first in a process 800: new pages) | 636 | 516 |
| match a 100,000-token path of 100 nodes | 172 | 2,597 | 163 |
| match one of 1,000 branches | 4.7 | 23.4 | 4.5 |
| insert such a branch | 7.5 | 33.9 | 15.6 |
| evict and insert under pressure | 234 (141 through leases, which evict in batches) | 257 | 37.7 |
| evict 50,000 tokens at once | 2,093 | 3,450 | 2,408 |
| residency of 1,001 rows, one walk | 2,845 | | |
"""
