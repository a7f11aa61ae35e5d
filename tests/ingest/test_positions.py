from hypothesis import given
from hypothesis import strategies as st

from ingest import positions
from ingest.positions import Position
from protocol.receipt import Gap

ranges = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=25)


def accounted(parts: list[tuple[int, int]]) -> Position:
    position = Position()
    for first, last in parts:
        assert position.account(first, last)
    return position


@given(ranges)
def test_a_position_is_what_a_set_of_numbers_says(parts: list[tuple[int, int]]) -> None:
    there = {number for first, last in parts for number in range(first, last + 1)}
    top = max(there, default=0)
    missing = [number for number in range(1, top + 1) if number not in there]

    position = accounted(parts)

    assert position.top == top
    assert [number for gap in position.gaps for number in range(gap.first, gap.last + 1)] == missing
    assert all(before.last + 1 < after.first for before, after in zip(position.gaps, position.gaps[1:], strict=False))
    assert position.up_to == (missing[0] - 1 if missing else top)
    assert all(position.accounts(number) == (number in there) for number in range(1, top + 5))


@given(ranges, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(parts: list[tuple[int, int]], random) -> None:
    shuffled = [*parts, *parts]
    random.shuffle(shuffled)

    assert accounted(shuffled) == accounted(parts)


def test_a_stream_of_lies_cannot_make_gaps_without_end() -> None:
    position = Position()
    for seq in range(2, 2 * positions.GAPS_STORED_MAX + 2, 2):
        assert position.account(seq, seq)
    before = (position.top, list(position.gaps))

    assert not position.account(position.top + 2, position.top + 2)
    assert (position.top, position.gaps) == before
    assert position.account(1, 1)  # closing a gap is always allowed
    assert position.account(position.top + 1, 2**63 - 1)


def test_one_jump_to_the_largest_number_is_one_gap() -> None:
    assert accounted([(1, 1), (2**63 - 1, 2**63 - 1)]).gaps == [Gap(2, 2**63 - 2)]
