"""CUDA graphs of decoding and of short prompts.

A step of decoding is one graph (`decoding.py`) that includes the choice of the next tokens, greedy or drawn, with
penalties and biases (`sampling.py`). It advances its own tables, so the next step is launched before this one's tokens
are read (`graph_decoder.py`). If a graph cannot settle a row (top-p over more than 128 tokens, alternatives), the host
chooses from its logits. A jump of up to 512 tokens in one prompt is a graph too (`prompts.py`).

Steps that mix prompts and decoding, and paths beyond 131,072 tokens, run eagerly. So does a model that cannot be
captured; `EngineStats.graphs` then says why. `tests/engine/graphs/test_graphs.py` runs all of it under Triton's
interpreter, and `tests/bench/gpu.py` measures it (`tests/bench/results`).
"""
