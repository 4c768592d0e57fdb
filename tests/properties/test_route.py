"""However rows combine, the split is whole and complete."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.degradation.action import Cordon, ServeFromCache, Shed, SwitchPool, UsePool
from controlplane.degradation.actuator import Pull, route
from controlplane.degradation.matrix import LEVELS, Level

ratios = st.floats(0, 1)
moves = st.one_of(
    st.builds(SwitchPool, st.sampled_from(["standby", "base"])),
    st.builds(UsePool, st.sampled_from(["base", "cache", "standby"]), ratios),
    st.just(ServeFromCache()),
)
others = st.builds(Shed, st.floats(1, 1e6), st.just(0.0), st.none() | st.integers(0, 9)) | st.builds(
    Cordon, st.sampled_from(["primary-0", "primary-1"])
)
actions = st.builds(lambda move, rest: (move, *rest), moves, st.lists(others, max_size=2))
pulls = st.lists(
    st.builds(Pull, st.sampled_from([Level.P0, Level.P1, Level.P2]), actions, ratios), max_size=3,
    unique_by=lambda p: p.level,
)  # fmt: skip


@given(pulls)
def test_the_weights_are_whole_not_negative_and_add_up_to_a_hundred(engaged: list[Pull]) -> None:
    plan = route(engaged)
    assert sum(plan.weights.values()) == 100
    assert all(isinstance(weight, int) and weight >= 0 for weight in plan.weights.values())


@given(pulls, st.randoms(use_true_random=False))
def test_the_order_in_which_rows_are_named_makes_no_difference(engaged: list[Pull], random: object) -> None:
    shuffled = sorted(engaged, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert route(shuffled) == route(engaged)


@given(pulls)
def test_the_level_is_the_worst_row_in_force(engaged: list[Pull]) -> None:
    in_force = [p.level for p in engaged if p.strength > 0]
    assert route(engaged).level is max(in_force, key=LEVELS.index, default=Level.NONE)


@given(pulls, st.sampled_from(["standby", "base"]))
def test_a_whole_switch_leaves_nothing_at_the_primary(engaged: list[Pull], target: str) -> None:
    others = [p for p in engaged if p.level is not Level.P0]
    assert route([*others, Pull(Level.P0, (SwitchPool(target),))]).weights.get("primary", 0) == 0


@given(ratios, ratios)
def test_a_stronger_pull_never_leaves_more_at_the_primary(weak: float, strong: float) -> None:
    weak, strong = min(weak, strong), max(weak, strong)
    left = [route([Pull(Level.P0, (SwitchPool(),), s)]).weights["primary"] for s in (weak, strong)]
    assert left[0] >= left[1]


@given(pulls)
def test_shedding_rows_let_in_what_the_strictest_lets_in(engaged: list[Pull]) -> None:
    sheds = [a for p in engaged if p.strength > 0 for a in p.do if isinstance(a, Shed)]
    shed = route(engaged).shed
    assert (shed is None) == (not sheds)
    if shed:
        assert shed.rate == min(s.rate for s in sheds)
        assert shed.floor == min((s.floor for s in sheds if s.floor is not None), default=None)


@given(pulls)
def test_what_a_row_in_force_cordons_is_cordoned_once(engaged: list[Pull]) -> None:
    wanted = {a.endpoint for p in engaged if p.strength > 0 for a in p.do if isinstance(a, Cordon)}
    assert route(engaged).cordoned == tuple(sorted(wanted))
