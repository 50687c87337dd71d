"""The cache: radix tree, slot pool, leases, eviction, host and disk tiers."""
