"""A process with an outbox that says what was acknowledged: ``r N`` a row, ``f N`` a fact. Killed, starved and lied to by tests.

python -m tests.faults.worker FOLDER FIRST STEPS
"""

import sys
from pathlib import Path

from edge.outbox import OutboxError
from protocol.topics import Lane
from tests.support.outbox import make_fact, make_rows, open_store


def main() -> int:
    folder, first, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    store = open_store(folder, boot=first, seed=first)
    say("open")
    failures = 0
    for step in range(steps):
        at = first + 10 * step
        try:
            store.append_groups([make_rows(range(at, at + 5))])
            say(*(f"r {counter}" for counter in range(at, at + 5)))
            store.append_fact(Lane.METERING if step % 2 else Lane.ALARM, make_fact(at))
            say(f"f {at}")
            if step % 3 == 2:
                store.seal_all()
        except OutboxError as error:
            failures += 1
            say(f"error {type(error).__name__}")
    store.close()
    counts = store.counts
    say(f"done {failures} {counts.commits_unknown} {counts.reopened} {counts.mirror_faults}")
    return 0


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
