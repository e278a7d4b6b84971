"""Which worker gets which row."""

import itertools
import random

from catalogue.plan import Plan, in_order
from catalogue.rows import Changes, Row


def rows(*sizes):
    """All combinations of so many faces, shirts ..., in no order."""
    worn = itertools.product(*([(f"part {i}", str(n)) for n in range(size)] for i, size in enumerate(sizes)))
    made = [Row(f"line {i}", str(i), Changes(), str(i), each) for i, each in enumerate(worn)]
    random.Random(0).shuffle(made)
    return made


def changes(line):
    """How many parts are other ones than in the row before."""
    return sum(len(set(row.worn) - set(before.worn)) for before, row in itertools.pairwise(line))


def drawn_by(plan, turns):
    """What each worker gets when they ask in this order."""
    lines = {worker: [] for worker in plan.lines}
    for worker in turns:
        if row := plan.next(worker):
            lines[worker].append(row)
    return lines


def test_one_part_changes_at_a_time():
    for sizes in ((2, 3, 40), (40, 3, 2)):
        line = in_order(rows(*sizes))
        assert changes(line) == len(line) - 1 == 239
        first, second, third = (len({dict(row.worn)[f"part {i}"] for row in line[:120]}) for i in range(3))
        assert min(first, third) == 1, "what there is least of changes once"


def test_rows_that_wear_the_same_stay_together():
    made = [Row(f"line {i}", str(i), Changes(), str(i), (("face", str(i % 3)),)) for i in range(12)]
    assert [row.name for row in in_order(made)] == ["0", "3", "6", "9", "10", "7", "4", "1", "2", "5", "8", "11"]


def test_every_row_is_drawn_once_whoever_is_fast():
    for seed in range(20):
        choice = random.Random(seed)
        made = rows(3, 4, 5)
        plan = Plan(made, ["a", "b", "c"])
        lines = drawn_by(plan, (choice.choices("abc", (1, 3, 9))[0] for _ in range(2000)))
        assert sorted(row.name for line in lines.values() for row in line) == sorted(row.name for row in made) and not len(plan)


def test_who_is_done_takes_rows_from_where_the_parts_change():
    made = [Row(f"line {i}", str(i), Changes(), str(i), (("face", str(i // 10)),)) for i in range(40)]
    plan = Plan(made, ["slow", "fast"])
    lines = drawn_by(plan, ["slow", *["fast"] * 39])
    assert changes(lines["fast"]) == 3 and len(lines["fast"]) == 39


def test_a_row_that_failed_is_given_to_another_worker():
    plan = Plan(rows(4), ["a", "b"])
    row = plan.next("a")
    plan.again(row, "a")
    assert row in plan.lines["b"] and len(plan) == 4
    plan.leave("a")
    assert {row.name for row in drawn_by(plan, "bbbb")["b"]} == {"0", "1", "2", "3"}
    alone = Plan(rows(1), ["a"])
    row = alone.next("a")
    alone.again(row, "a")
    assert alone.next("a") is row
