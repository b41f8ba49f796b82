"""Who goes, who fits."""

from hypothesis import given
from hypothesis import strategies as st

from pyggml_server.scheduler.policy import Resident, check_room, choose_victim

GIB = 2**30

residents = st.builds(
    Resident,
    state=st.sampled_from(["loading", "ready", "stopping"]),
    active=st.integers(0, 2),
    waiting=st.integers(0, 2),
    keep_alive=st.sampled_from([0.0, 60.0, 300.0, float("inf")]),
    last_used=st.integers(0, 5).map(float),
    reserved=st.dictionaries(st.sampled_from(["CPU", "GPU0"]), st.integers(0, GIB), max_size=2),
)


def ready(keep_alive: float = 300, last_used: float = 0, size: int = 1, **more: int) -> Resident:
    return Resident("ready", keep_alive=keep_alive, last_used=last_used, reserved={"CPU": size}, **more)


def test_order_of_eviction() -> None:
    forever = ready(keep_alive=float("inf"), last_used=0)
    short = ready(keep_alive=60, last_used=9)
    old = ready(last_used=1)
    new_small, new_large = ready(last_used=2, size=5), ready(last_used=2, size=50)
    wanted = ready(keep_alive=0, waiting=1)
    everyone = [forever, new_small, wanted, old, new_large, short]
    order = []
    while everyone:
        victim = choose_victim(everyone)
        assert victim is not None
        order.append(victim)
        everyone = [each for each in everyone if each is not victim]
    assert [id(each) for each in order] == [id(e) for e in (short, old, new_large, new_small, forever, wanted)]


@given(st.lists(residents, max_size=6))
def test_only_idle_ones_go(everyone: list[Resident]) -> None:
    victim = choose_victim(everyone)
    idle = [each for each in everyone if each.state == "ready" and not each.active]
    assert (victim is None) == (not idle)
    if victim is not None:
        assert victim in idle
        free = [each for each in idle if not each.waiting] or idle
        assert victim.keep_alive == min(each.keep_alive for each in free)


def device(name: str = "CPU", *, needed: int, free: int, total: int = 16 * GIB, layers: int = 0) -> dict[str, object]:
    kind = "cpu" if name == "CPU" else "gpu"
    return {"name": name, "type": kind, "needed": needed, "free": free, "total": total, "layers": layers}


def test_what_others_take_counts_even_where_it_is_reported_free() -> None:
    beside = [Resident("ready", reserved={"CPU": 10 * GIB})]
    need = [device(needed=8 * GIB, free=15 * GIB)]  # mapped weights that nobody has read yet
    room = check_room(need, beside, margin=0, partial=False)
    assert not room.fits
    assert not room.accounted
    assert room.lacking == {"CPU": 2 * GIB}
    assert check_room(need, [], margin=0, partial=False).fits


def test_memory_that_is_not_given_back_yet() -> None:
    room = check_room([device("GPU0", needed=8 * GIB, free=2 * GIB)], [], margin=GIB, partial=False)
    assert (room.fits, room.accounted) == (False, True)


def test_the_margin_is_for_gpus() -> None:
    assert not check_room([device("GPU0", needed=16 * GIB, free=16 * GIB)], [], margin=1, partial=False).fits
    assert check_room([device("CPU", needed=16 * GIB, free=16 * GIB)], [], margin=1, partial=False).fits


def test_beside_others_a_model_must_fit_whole() -> None:
    split = [
        device("GPU0", needed=GIB, free=8 * GIB, layers=5),
        device("CPU", needed=GIB, free=8 * GIB, layers=20),
    ]
    assert not check_room(split, [], margin=0, partial=False).fits
    assert check_room(split, [], margin=0, partial=True).fits


def test_a_model_of_unknown_needs_takes_the_size_of_its_file() -> None:
    loading = [Resident("loading", file_size=12 * GIB)]
    assert not check_room([device(needed=8 * GIB, free=16 * GIB)], loading, margin=0, partial=False).fits


@given(st.integers(0, 20 * GIB), st.integers(0, 16 * GIB), st.lists(residents, max_size=4), st.integers(0, GIB))
def test_more_room_never_hurts(needed: int, free: int, others: list[Resident], margin: int) -> None:
    tight = check_room([device("GPU0", needed=needed, free=free)], others, margin=margin, partial=False)
    more = check_room([device("GPU0", needed=needed, free=free + GIB)], others[1:], margin=0, partial=False)
    assert more.fits or not tight.fits
    assert tight.fits == (not tight.lacking)
    assert tight.accounted or not tight.fits
