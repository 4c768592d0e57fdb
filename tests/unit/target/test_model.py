"""The model: bit-equal logits however tokens are computed, in every precision; refusals that say what to do."""

import random

import pytest
import torch

from controlplane.target import precision as formats
from controlplane.target.errors import TargetError
from controlplane.target.model import Chunk, Transformer, device_named
from controlplane.target.precision import COMPUTE, require
from controlplane.target.spec import EndpointSpec, ModelShape
from tests.support.endpoints import DEVICES

SHAPES = {
    "grouped": ModelShape(layers=2, width=64, heads=4, kv_heads=2, hidden=128),
    "one key head": ModelShape(layers=1, width=96, heads=3, kv_heads=1, hidden=256),
    "every head its own keys": ModelShape(layers=1, width=64, heads=4, kv_heads=4, hidden=128),
}
LENGTH = 150


def model(shape: ModelShape, precision: str, device: str) -> Transformer:
    torch.set_num_threads(1)
    try:
        return Transformer(shape, 64, 0, torch.device(device), precision)
    except TargetError as refusal:
        pytest.skip(str(refusal))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", COMPUTE)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_token_has_the_same_logits_alone_in_a_prompt_in_chunks_and_beside_others(
    shape: str, precision: str, device: str
) -> None:
    transformer = model(SHAPES[shape], precision, device)
    chance = random.Random(1)
    tokens = [chance.randrange(256) for _ in range(LENGTH)]
    tables = [list(range(1 + 10 * row, 11 + 10 * row)) for row in range(4)]
    alone = torch.cat([transformer.compute([Chunk([token], at, tables[0])]) for at, token in enumerate(tokens)])
    whole = transformer.compute([Chunk(tokens, 0, tables[1])])[0]
    atol, rtol = (0.0, 0.0) if device == "cpu" else (0.25, 0.05)
    torch.testing.assert_close(whole, alone[-1], atol=atol, rtol=rtol)
    at = 0
    while at < LENGTH:
        count = min(chance.choice([1, 3, 37, 64]), LENGTH - at)
        others = [Chunk([65], 5, tables[3]), Chunk(tokens[:23], 0, tables[3])]
        logits = transformer.compute([*others, Chunk(tokens[at : at + count], at, tables[2])])[-1]
        at += count
        torch.testing.assert_close(logits, alone[at - 1], atol=atol, rtol=rtol)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "int4"])
def test_other_precisions_are_near_fp32_and_not_equal_to_it(precision: str) -> None:
    exact = model(SHAPES["grouped"], "fp32", "cpu").compute([Chunk(list(b"hello"), 0, [1])])[0, 32:127]
    rounded = model(SHAPES["grouped"], precision, "cpu").compute([Chunk(list(b"hello"), 0, [1])])[0, 32:127]
    correlation = float(torch.corrcoef(torch.stack([exact, rounded]))[0, 1])
    assert 0.97 < correlation < 1.0 or precision == "fp16"
    assert not torch.equal(exact, rounded)


def test_a_precision_that_does_not_exist_is_refused_with_the_choice() -> None:
    with pytest.raises(TargetError, match="Choose one of fp32, bf16, fp16, int8, int4"):
        require("fp8", torch.device("cpu"))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_without_torchao_few_bits_are_refused_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    def missing(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(formats, "import_module", missing)
    with pytest.raises(TargetError) as refusal:
        require(precision, torch.device("cpu"))
    assert refusal.value.fix == "pip install 'controlplane[quantised]'."


def test_an_old_gpu_is_refused_what_it_cannot_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P4")
    with pytest.raises(TargetError, match="Tesla P4 has no bfloat16 arithmetic"):
        require("bf16", torch.device("cuda"))


def test_a_shape_that_four_bits_do_not_fit_is_refused() -> None:
    pytest.importorskip("torchao")
    with pytest.raises(TargetError, match="multiples of 32"):
        Transformer(ModelShape(layers=1, width=40, heads=2, kv_heads=1, hidden=64), 8, 0, torch.device("cpu"), "int4")


def test_a_shape_can_be_given_by_layers_width_and_heads() -> None:
    shape = EndpointSpec(layers=3, width=256, heads=8, max_len=4096).shape
    assert shape == ModelShape(layers=3, width=256, heads=8, kv_heads=2, hidden=704, max_len=4096)
    with pytest.raises(TargetError, match="heads must split the width evenly"):
        _ = EndpointSpec(width=100, heads=7).shape
    with pytest.raises(TargetError, match="Choose one of full, base"):
        _ = EndpointSpec(model="huge").shape


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_with_the_choice(name: str) -> None:
    with pytest.raises(TargetError, match="Choose auto") as refusal:
        device_named(name)
    assert refusal.value.what == f"cannot serve on {name!r}"
