"""Read and write treechat's own format."""
