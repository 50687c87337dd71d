"""Read records from an untrusted file, with limits."""
