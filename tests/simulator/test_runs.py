from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from simulator.runs import Runs

numbers = st.lists(st.integers(0, 60), max_size=80)


@given(numbers)
def test_runs_are_a_set(found):
    runs = Runs()

    new = [runs.add(number) for number in found]

    assert list(runs) == sorted(set(found))
    assert len(runs) == len(set(found)) == sum(new)
    assert all((number in runs) == (number in set(found)) for number in range(-1, 63))


@given(numbers)
def test_ranges_never_touch(found):
    ranges = list(Runs(found).ranges())

    assert all(earlier[1] + 1 < later[0] for earlier, later in pairwise(ranges))
    assert all(start <= end for start, end in ranges)


def test_a_long_history_is_one_range():
    runs = Runs(range(100_000))

    assert list(runs.ranges()) == [(0, 99_999)]
