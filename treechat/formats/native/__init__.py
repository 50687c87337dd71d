"""treechat's own format."""
