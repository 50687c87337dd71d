"""From an untrusted file to records, each guarded."""
