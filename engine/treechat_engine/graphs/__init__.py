"""CUDA graphs of decoding and of short prompts."""
