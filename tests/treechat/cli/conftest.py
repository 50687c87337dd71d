"""The real command line with a separate database, and a tiny model on disk for the real engine."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from treechat.cli import main
from treechat.store import Store
from treechat.tree import Span, Turn

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Cli:
    """Run commands in this process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.db = home / "data" / "treechat.db"

    def __call__(self, *args: str, status: int = 0, input: bytes | None = None) -> Result:
        result = CliRunner().invoke(main, list(args), input=input)
        assert result.exit_code == status, (result.exit_code, result.stdout, result.stderr, result.exception)
        return result

    def json(self, *args: str, status: int = 0):
        return json.loads(self(*args, "--json", status=status).stdout)

    def store(self) -> Store:
        return Store.open(self.db)


@pytest.fixture
def cli(tmp_path, monkeypatch) -> Cli:
    for name in ("data", "config", "cache"):
        monkeypatch.setenv(f"TREECHAT_{name.upper()}_DIR", str(tmp_path / name))
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text("kv_tokens = 8000\nnum_threads = 1\n")
    return Cli(tmp_path)


@pytest.fixture
def trip(cli: Cli) -> dict[str, str]:
    """A conversation with a fork: ids of its nodes by name; `c` is the id of the conversation."""
    ids = {name: f"{name}{name}0000000000" for name in ("sy", "q1", "a1", "a2", "q2")} | {"c": "cc0000000000000"}
    turn = Turn("tiny", {"temperature": 0.5}, 3, "stop", 10, 6, 0, 4, 2, 0.0, 0.25, 0.5)
    with cli.store() as store:
        store.create_conversation("Trip \x1b[31mto Italy", id=ids["c"], created_at=5.0, meta={"from": "test"})
        add = store.add_node
        add(ids["c"], None, "system", "Be kind.", id=ids["sy"], created_at=5.0)
        add(ids["c"], ids["sy"], "user", "Where to go?", id=ids["q1"], created_at=6.0)
        span = Span("tok", (1, 2), (-0.5, -0.25))
        add(ids["c"], ids["q1"], "assistant", "To Rome\x1b[31m.", id=ids["a1"], created_at=7.0, turn=turn, spans=[span])
        add(ids["c"], ids["q1"], "assistant", "To Florence.", id=ids["a2"], label="art", bookmarked=True)
        add(ids["c"], ids["a1"], "user", "By train?", id=ids["q2"], meta={"k": [1]})
        store.set_current(ids["c"], ids["q2"])
    return ids


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A directory with a Llama of 2 random layers and a byte tokenizer with a chat template.

    It never samples the end of a reply: otherwise one reply in 258 tokens would be shorter than its test expects.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tiny-model")
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    fast.chat_template = TEMPLATE
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=8192, bos_token_id=None, eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # the first channel is a positive constant and lowers the logit of the end
        model.model.embed_tokens.weight[:, 0] = 0.1
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0
        model.lm_head.weight[fast.eos_token_id, 0] = -100
    model.save_pretrained(path)
    return str(path)
