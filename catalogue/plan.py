"""Which row is next for which worker: rows that wear the same parts go to the same worker, one after another."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Hashable

from .rows import Row


class Plan:
    """What is still to be drawn, in a line for each worker.

    Every line holds neighbours in an order in which the parts change as seldom as can be. Who has none left takes the end of
    the longest line: where the parts change, if they do.
    """

    def __init__(self, rows: list[Row], workers: list[Hashable]):
        rows = in_order(rows)
        share = -(-len(rows) // len(workers))
        self.lines = {worker: deque(rows[i * share:(i + 1) * share]) for i, worker in enumerate(workers)}

    def __len__(self) -> int:
        return sum(map(len, self.lines.values()))

    def next(self, worker: Hashable) -> Row | None:
        """Takes a row out of the plan. None where there is none."""
        if not self.lines[worker] and (longest := max(self.lines.values(), key=len)):
            for _ in range(_cut(longest)):
                self.lines[worker].appendleft(longest.pop())
        return self.lines[worker].popleft() if self.lines[worker] else None

    def again(self, row: Row, worker: Hashable):
        """Takes a row back that this worker did not end: at the end of another one's line, if there is another."""
        others = [other for other in self.lines if other != worker] or [worker]
        self.lines[min(others, key=lambda other: len(self.lines[other]))].append(row)

    def leave(self, worker: Hashable):
        """A worker that takes no more: others will take what is in its line."""
        rest = self.lines.pop(worker)
        if self.lines:
            self.lines[min(self.lines, key=lambda other: len(self.lines[other]))].extend(rest)


def in_order(rows: list[Row]) -> list[Row]:
    """Sorted by what they wear. What there is least of changes most seldom, and from one of it to the next the others run
    back, so that the fewest parts change in all: one at a time where everything is combined with everything."""
    worn = {id(row): dict(row.worn) for row in rows}
    rank = {pair: i for i, pair in enumerate(dict.fromkeys(pair for row in rows for pair in row.worn))}
    seen = Counter(label for label, _ in rank)

    def sort(rows: list[Row], labels: list[str]) -> list[Row]:
        if not labels:
            return rows
        groups = defaultdict(list)
        for row in rows:
            groups[rank.get((labels[0], worn[id(row)].get(labels[0])), -1)].append(row)
        ordered = [sort(group, labels[1:]) for _, group in sorted(groups.items())]
        return [row for i, group in enumerate(ordered) for row in (group[::-1] if i % 2 else group)]

    return sort(rows, sorted(seen, key=lambda label: (seen[label], label)))


def _cut(line: deque[Row]) -> int:
    """How many to take from the end of a line: about half, but not from the midst of rows that wear the same."""
    half = -(-len(line) // 2)
    changes = [i for i in range(1, len(line)) if line[-i].worn != line[-i - 1].worn]
    return min(changes, key=lambda i: abs(i - half)) if changes else half
