"""The cell table, with numbers written by hand."""

import numpy as np
import pytest

from pyggml.batch import Batch
from pyggml.errors import ContextFullError, ParameterError
from pyggml.kvcache import CellTable


def put(table: CellTable, seq_id: int, start: int, n: int) -> list[int]:
    cells: list[int] = table.take(Batch.of_sequence([0] * n, start=start, seq_id=seq_id)).tolist()
    return cells


def state(table: CellTable) -> list[tuple[int, set[int]]]:
    """Position and sequences of each cell up to the end."""
    return [
        (int(pos), {i for i in range(64) if int(seqs) >> i & 1})
        for pos, seqs in zip(table.pos[: table.end], table.seqs[: table.end], strict=True)
    ]


FREE: tuple[int, set[int]] = (-1, set())


def test_cells_are_taken_in_order() -> None:
    table = CellTable(8)
    assert put(table, 0, 0, 3) == [0, 1, 2]
    assert put(table, 5, 0, 2) == [3, 4]
    assert put(table, 0, 3, 1) == [5]
    assert state(table) == [(0, {0}), (1, {0}), (2, {0}), (0, {5}), (1, {5}), (3, {0})]
    assert (table.n_used, table.end) == (6, 6)
    assert sorted(table.positions(0)) == [0, 1, 2, 3] and sorted(table.positions(5)) == [0, 1]
    assert table.of(5).tolist() == [False, False, False, True, True, False]


def test_gaps_are_filled_lowest_first() -> None:
    table = CellTable(8)
    put(table, 0, 0, 3)
    put(table, 1, 0, 3)
    table.drop(0, 1, 3)
    assert state(table) == [(0, {0}), FREE, FREE, (0, {1}), (1, {1}), (2, {1})]
    table.drop(1, 1, 2)
    assert (table.n_used, table.end) == (3, 6)
    assert put(table, 2, 0, 4) == [1, 2, 4, 6]
    assert (table.n_used, table.end) == (7, 7)
    assert put(table, 2, 4, 1) == [7]
    with pytest.raises(ContextFullError, match="0 of 8 cells free; 1 are needed"):
        put(table, 2, 5, 1)


def test_the_end_moves_back() -> None:
    table = CellTable(8)
    put(table, 0, 0, 6)
    table.drop(0, 4, None)
    assert table.end == 4
    table.drop(0, 0, 4)
    assert (table.end, table.n_used) == (0, 0)
    assert put(table, 0, 0, 8) == list(range(8))


@pytest.mark.parametrize(
    ("begin", "end", "left"),
    [(0, None, []), (2, None, [0, 1]), (1, 3, [0, 3, 4]), (3, 3, [0, 1, 2, 3, 4]), (9, None, [0, 1, 2, 3, 4])],
)
def test_drop(begin: int, end: int | None, left: list[int]) -> None:
    table = CellTable(8)
    put(table, 0, 0, 5)
    put(table, 1, 0, 2)
    table.drop(0, begin, end)
    assert sorted(table.positions(0)) == left
    assert sorted(table.positions(1)) == [0, 1]
    assert table.n_used == len(left) + 2


def test_drop_below() -> None:
    table = CellTable(8)
    put(table, 0, 0, 5)
    put(table, 1, 0, 2)
    table.drop_below(0, 3)
    assert sorted(table.positions(0)) == [3, 4] and sorted(table.positions(1)) == [0, 1]


def test_a_shared_cell_lives_until_the_last_sequence_leaves() -> None:
    table = CellTable(8)
    put(table, 0, 0, 4)
    table.share(0, 3, 2)
    assert state(table) == [(0, {0, 3}), (1, {0, 3}), (2, {0}), (3, {0})]
    assert table.n_used == 4
    table.drop(0, 0, None)
    assert state(table) == [(0, {3}), (1, {3})] and table.n_used == 2
    table.drop(3, 1, None)
    assert state(table) == [(0, {3})] and table.n_used == 1


def test_sharing_replaces_what_the_target_held() -> None:
    table = CellTable(8)
    put(table, 0, 0, 3)
    put(table, 1, 0, 3)
    table.share(0, 1, 10)
    assert state(table) == [(0, {0, 1}), (1, {0, 1}), (2, {0, 1})]


def test_sharing_with_itself_cuts() -> None:
    table = CellTable(8)
    put(table, 0, 0, 5)
    table.share(0, 0, 2)
    assert sorted(table.positions(0)) == [0, 1]


def test_a_batch_of_several_sequences() -> None:
    table = CellTable(4)
    batch = Batch(*(np.array(x, np.int32) for x in ([7, 7, 7], [4, 9, 5], [2, 63, 2], [0])))
    assert table.take(batch).tolist() == [0, 1, 2]
    assert state(table) == [(4, {2}), (9, {63}), (5, {2})]


def test_a_full_table_stays_as_it_was() -> None:
    table = CellTable(4)
    put(table, 0, 0, 3)
    before = state(table)
    with pytest.raises(ContextFullError, match="1 of 4 cells free; 2 are needed"):
        put(table, 1, 0, 2)
    assert state(table) == before and (table.n_used, table.end) == (3, 3)
    assert put(table, 1, 0, 1) == [3]


def test_give_back_and_restore() -> None:
    table = CellTable(6)
    put(table, 0, 0, 3)
    table.drop(0, 1, 2)
    before, saved = state(table), table.save()
    taken = table.take(Batch.of_sequence([0, 0], start=3))
    assert taken.tolist() == [1, 3]
    table.give_back(taken)
    assert state(table) == before and (table.n_used, table.end) == (2, 3)
    table.drop(0, 0, None)
    put(table, 1, 0, 6)
    table.restore(saved)
    assert state(table) == before and put(table, 0, 3, 2) == [1, 3]


@pytest.mark.parametrize("seq_id", [-1, 64])
def test_a_sequence_id_out_of_range(seq_id: int) -> None:
    table = CellTable(4)
    for call in (lambda: table.drop(seq_id, 0, None), lambda: table.share(0, seq_id, 1), lambda: table.of(seq_id)):
        with pytest.raises(ParameterError, match="0 to 63"):
            call()


@pytest.mark.parametrize(
    ("tokens", "options"),
    [
        ([], {"start": 0}),
        ([[1]], {"start": 0}),
        ([1], {"start": -1}),
        ([1], {"start": 0, "seq_id": 64}),
        ([1], {"start": 0, "seq_id": -1}),
        ([1, 2], {"start": 0, "outputs": [2]}),
        ([1, 2], {"start": 0, "outputs": [-1]}),
        ([1, 2], {"start": 0, "outputs": [1, 0]}),
        ([1, 2], {"start": 0, "outputs": [1, 1]}),
    ],
    ids=str,
)
def test_a_batch_checks_its_numbers(tokens: list[int], options: dict[str, int]) -> None:
    with pytest.raises(ParameterError):
        Batch.of_sequence(tokens, **options)  # type: ignore[arg-type]
