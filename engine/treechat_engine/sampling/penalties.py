"""The effect of a request's history on its logits: repetition, presence and frequency penalties, and logit bias.

Only the logits of penalised or biased tokens are changed, for all rows of a batch in one operation. The cost of a row
is therefore its number of distinct tokens, not the size of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from treechat_engine.api import SamplingParams


class History:
    """The distinct tokens of one request, and the presence and frequency penalties of each.

    `reply_ids` are those of its reply. The repetition penalty counts prompt and reply, the other two only the reply,
    like other inference servers.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int]) -> None:
        self.repetition = params.repetition_penalty
        self._presence = params.presence_penalty
        self._frequency = params.frequency_penalty
        ids = np.unique(np.asarray(prompt_ids, dtype=np.int64)) if self.repetition != 1 else np.empty(0, np.int64)
        self._num = len(ids)
        self._ids = np.concatenate((ids, np.zeros(64, np.int64)))
        self._drops = np.zeros(len(self._ids), np.float32)
        self._place = {token_id: i for i, token_id in enumerate(ids.tolist())}
        self.reply_ids: set[int] = set()

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        return self._ids[: self._num]

    @property
    def drops(self) -> npt.NDArray[np.float32]:
        """The amount subtracted from the logit of each of `ids`."""
        return self._drops[: self._num]

    def record(self, token_id: int) -> None:
        """Count a token of the reply."""
        place = self._place.get(token_id)
        if place is None:
            place = self._place[token_id] = self._num
            if place == len(self._ids):
                self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
                self._drops = np.concatenate((self._drops, np.zeros_like(self._drops)))
            self._ids[place] = token_id
            self._num += 1
        if token_id not in self.reply_ids:
            self.reply_ids.add(token_id)
            self._drops[place] += self._presence
        self._drops[place] += self._frequency


class Bias:
    """Logits added to some tokens. Raises ValueError for unknown tokens, and if all tokens are forbidden."""

    def __init__(self, params: SamplingParams, vocab_size: int) -> None:
        for token_id in params.logit_bias:
            if not 0 <= token_id < vocab_size:
                raise ValueError(f"logit_bias names token {token_id}, which is outside 0..{vocab_size - 1}")
        if list(params.logit_bias.values()).count(-math.inf) == vocab_size:
            raise ValueError("logit_bias forbids every token")
        self.ids = np.fromiter(params.logit_bias.keys(), np.int64)
        self.values = np.fromiter(params.logit_bias.values(), np.float32)


def adjust(
    logits: torch.Tensor, histories: Sequence[tuple[int, History]], biases: Sequence[tuple[int, Bias]]
) -> torch.Tensor:
    """Return float32 logits [rows, vocabulary] after penalties and biases.

    Does not write to the given tensor. Returns it unchanged if there is nothing to do.

    logits: [rows, vocabulary].
    histories: (row, history) pairs, applied first.
    biases: (row, bias) pairs, added afterwards.
    """
    if not histories and not biases:
        return logits
    vocab_size, out = logits.shape[1], logits.clone()
    flat = out.view(-1)
    if histories:
        index = _to_device_of(logits, np.concatenate([each.ids + row * vocab_size for row, each in histories]))
        drops = _to_device_of(logits, np.concatenate([each.drops for _, each in histories]))
        values = flat[index]
        if any(each.repetition != 1 for _, each in histories):
            sizes = [len(each.ids) for _, each in histories]
            factors = _to_device_of(
                logits, np.repeat(np.array([h.repetition for _, h in histories], np.float32), sizes)
            )
            values = torch.where(values < 0, values * factors, values / factors)
        flat[index] = values - drops
    if biases:
        index = _to_device_of(logits, np.concatenate([each.ids + row * vocab_size for row, each in biases]))
        flat.index_add_(0, index, _to_device_of(logits, np.concatenate([each.values for _, each in biases])))
    return out


def _to_device_of(like: torch.Tensor, values: npt.NDArray[np.int64] | npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device, non_blocking=True)
