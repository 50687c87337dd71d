"""`bench --quick` with the real engine on a tiny random model."""

import json
import re


def test_bench_json_has_exactly_these_keys_and_counts_prove_the_reuse(cli, tiny_model):
    result = cli("bench", "-m", tiny_model, "--quick", "--json")
    measured = json.loads(result.stdout)
    assert set(measured) == {"machine", "model", "dtype", "commit", "jump", "fork", "fan_out", "decode"}
    assert measured["dtype"] == "float32" and measured["machine"] and measured["commit"]
    resumed = {
        "prefix_tokens", "branch_tokens", "new_tokens", "computed_tokens", "ttft_s", "full_prefill_s", "speedup",
    }  # fmt: skip
    for row in measured["jump"] + measured["fork"]:
        assert set(row) == resumed
        assert row["new_tokens"] <= row["computed_tokens"] <= row["new_tokens"] + 1
        assert row["ttft_s"] > 0 and row["full_prefill_s"] > 0
    [fan_out] = measured["fan_out"]
    assert set(fan_out) == {"siblings", "prefix_tokens", "tokens_per_s", "slots", "slots_unshared"}
    assert fan_out["slots"] < fan_out["slots_unshared"] / 2
    assert set(measured["decode"][0]) == {"batch", "context_tokens", "tokens_per_s", "generate_tokens_per_s"}
    assert "decode" in result.stderr


def test_bench_prints_a_table_headed_by_machine_model_dtype_and_commit(cli, tiny_model):
    out = cli("bench", "-m", tiny_model, "--quick", "--only", "fork").stdout
    head, machine, _, title, names, figures = out.splitlines()
    assert re.search(r", float32, commit \S+$", head)
    assert "threads" in machine
    assert title == "fork"
    assert names.split()[:4] == ["prefix", "branch", "new", "computed"]
    assert figures.split()[:4] == ["256", "0", "29", "29"]
