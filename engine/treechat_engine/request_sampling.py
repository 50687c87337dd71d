"""Sample a token for each request from its row of logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treechat_engine.api import Token
from treechat_engine.request import Request
from treechat_engine.sampling.sampler import sample


def sample_requests(logits: torch.Tensor, requests: Sequence[Request], by_row: bool = False) -> dict[Request, Token]:
    """Return a token for each request from its row of logits [rows, vocabulary]. None of the requests is a warm one.

    by_row: sample each row alone, so that the number of rows does not choose the kernels.
    """
    samplers = [request.sampler for request in requests if request.sampler is not None]
    if not by_row:
        return dict(zip(requests, sample(logits, samplers), strict=True))
    tokens = [sample(logits[i : i + 1], samplers[i : i + 1])[0] for i in range(len(samplers))]
    return dict(zip(requests, tokens, strict=True))
