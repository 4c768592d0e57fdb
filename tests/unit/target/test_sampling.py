"""Choosing tokens: penalties, bias, min_p and top_k do what vLLM's do, and equal seeds draw equal tokens."""

import numpy as np
import pytest

from controlplane.target.sampling import Sampling, adjust, choose, logprobs

LOGITS = np.array([2.0, 1.0, 0.0, -1.0], dtype=np.float32)


def drawn(sampling: Sampling, count: int = 300) -> set[int]:
    generator = np.random.default_rng(3)
    return {choose(LOGITS, sampling, generator) for _ in range(count)}


@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [
        (Sampling(temperature=0.0), {0}),
        (Sampling(temperature=1.0), {0, 1, 2, 3}),
        (Sampling(temperature=1.0, top_k=2), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.6), {0}),
        (Sampling(temperature=1.0, top_p=0.7), {0, 1}),
        (Sampling(temperature=1.0, min_p=0.2), {0, 1}),
        (Sampling(temperature=1.0, min_p=1.0), {0}),
        (Sampling(temperature=0.01), {0}),
    ],
)
def test_only_tokens_that_the_settings_allow_are_drawn(sampling: Sampling, tokens: set[int]) -> None:
    assert drawn(sampling) == tokens


def test_equal_seeds_draw_equal_tokens_and_each_choice_has_a_seed_of_its_own() -> None:
    sampling = Sampling(temperature=1.0, seed=7)
    draws = [
        [choose(LOGITS, sampling, generator) for _ in range(50)]
        for generator in (np.random.default_rng(7), np.random.default_rng(7))
    ]
    assert draws[0] == draws[1]
    assert sampling.repeated(0) == sampling
    assert sampling.repeated(2).seed == 9
    assert Sampling(temperature=1.0).repeated(2).seed is None


def test_a_repetition_penalty_counts_prompt_and_answer_once_and_pulls_towards_unlikely() -> None:
    adjusted = adjust(LOGITS, Sampling(repetition_penalty=2.0), prompt=[0, 3, 3], answer=[1, 1])
    assert adjusted.tolist() == [1.0, 0.5, 0.0, -2.0]
    assert LOGITS.tolist() == [2.0, 1.0, 0.0, -1.0]


def test_presence_counts_once_frequency_each_time_and_neither_looks_at_the_prompt() -> None:
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    assert adjust(LOGITS, sampling, prompt=[0], answer=[1, 1, 2]).tolist() == [2.0, 0.0, -0.75, -1.0]


def test_a_bias_is_added_before_penalties() -> None:
    sampling = Sampling(bias=((3, 5.0),), repetition_penalty=2.0)
    assert adjust(LOGITS, sampling, prompt=[3], answer=[]).tolist() == [2.0, 1.0, 0.0, 2.0]


def test_logprobs_sum_to_one_and_are_sorted() -> None:
    found = logprobs(LOGITS, 2, 4)
    assert sum(np.exp(value) for _, value in found.top) == pytest.approx(1.0)
    assert [token for token, _ in found.top] == [0, 1, 2, 3]
    assert dict(found.top)[2] == found.logprob
