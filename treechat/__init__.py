"""treechat: LLM conversations that branch, in a terminal, without recomputing what branches share."""

__version__ = "0.1.0"
