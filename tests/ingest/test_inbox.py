import threading

from ingest import inbox as inboxes
from ingest.arrivals import Incoming
from ingest.inbox import BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, BYTES_MAX, LIVE_MAX, MESSAGES_MAX, Inbox
from ingest.source import Delivery


def delivery(handle: object, size: int = 1) -> Delivery:
    return Delivery(Incoming("t", bytes(size), 0), handle)


def test_a_batch_is_in_order_and_bounded_by_number() -> None:
    inbox = Inbox()
    for number in range(BATCH_MESSAGES_MAX + 5):
        inbox.offer(delivery(number), awaited=True)

    assert [one.handle for one in inbox.take(0)] == list(range(BATCH_MESSAGES_MAX))
    assert [one.handle for one in inbox.take(0)] == list(range(BATCH_MESSAGES_MAX, BATCH_MESSAGES_MAX + 5))
    assert inbox.take(0) == []


def test_a_batch_is_bounded_by_bytes_and_has_at_least_one() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.offer(delivery(number, BATCH_BYTES_MAX), awaited=True)

    assert [len(inbox.take(0)) for _ in range(3)] == [1, 1, 1]


def test_live_values_are_shed_and_counted_while_records_never_are() -> None:
    inbox = Inbox()
    for number in range(LIVE_MAX + 3):
        inbox.offer(delivery(number), awaited=False)
    inbox.offer(delivery("record"), awaited=True)

    assert (len(inbox), inbox.shed) == (LIVE_MAX + 1, 3)


def test_a_full_inbox_holds_the_sender_until_there_is_room() -> None:
    inbox = Inbox()
    for number in range(MESSAGES_MAX):
        inbox.offer(delivery(number), awaited=True)
    answers: list[bool] = []
    sender = threading.Thread(target=lambda: answers.append(inbox.offer(delivery("late"), awaited=True)))
    sender.start()
    sender.join(0.1)
    held = sender.is_alive()

    inbox.take(0)
    sender.join(10)

    assert held
    assert answers == [True]


def test_an_inbox_that_stays_full_turns_the_message_away(monkeypatch) -> None:
    monkeypatch.setattr(inboxes, "WAIT_S", 0.01)
    inbox = Inbox()
    inbox.offer(delivery("large", BYTES_MAX), awaited=True)

    assert inbox.offer(delivery("next"), awaited=True) is False
    assert len(inbox) == 1

    inbox.drop(lambda one: one.handle == "large")
    assert inbox.offer(delivery("next"), awaited=True) is True


def test_what_a_dead_connection_brought_is_forgotten() -> None:
    inbox = Inbox()
    for number in range(6):
        inbox.offer(delivery(number), awaited=True)

    inbox.drop(lambda one: one.handle in {1, 4})

    assert [one.handle for one in inbox.take(0)] == [0, 2, 3, 5]


def test_a_waiting_taker_is_let_go_by_close() -> None:
    inbox = Inbox()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(inbox.take(60)))
    thread.start()

    inbox.close()
    thread.join(10)

    assert got == [[]]
