"""Settings: the user's values precede those of the model's authors, which precede the defaults."""

from dataclasses import replace

from treechat.chat.settings import Settings
from treechat.config import Sampling


def test_the_user_precedes_the_authors_who_precede_the_defaults(model):
    recommended = replace(model, sampling=Sampling(temperature=0.2, top_k=20))
    params = Settings(sampling=Sampling(top_k=5)).params(recommended)
    assert (params.temperature, params.top_k, params.top_p) == (0.2, 5, 0.95)
    assert Settings(sampling=Sampling(temperature=0.0)).params(recommended).temperature == 0.0


def test_siblings_get_consecutive_seeds_and_random_ones_without_a_seed(model):
    assert [Settings(seed=7).params(model, i).seed for i in range(3)] == [7, 8, 9]
    assert len({Settings().params(model).seed for _ in range(20)}) > 15


def test_the_templates_end_token_stops_a_reply(model):
    assert Settings().params(model).stop_token_ids == model.stop_ids == (257,)
