"""A server under too much load, with clients that leave, killed, and ended while it works."""

from __future__ import annotations

import asyncio
from typing import Any

from demands import demand
from load_client import Answers, Clients, percentile
from served import Served


def check_answers(answers: Answers, what: str, count: int | None = None) -> None:
    """End the program if an answer is wrong, a request has none, or an error has no reason."""
    demand(answers.wrong == 0, f"{what}: {answers.wrong} of {answers.good} answers are wrong")
    demand(answers.hung == 0, f"{what}: {answers.hung} requests hang")
    demand(answers.statuses[500] == 0, f"{what}: {answers.statuses[500]} answers are errors")
    demand(answers.without_retry_after == 0, f"{what}: a refusal does not say when to come back")
    if count is not None:
        demand(answers.good == count, f"{what}: {answers.good} of {count} are answered")


def overload(server: Served, expected: dict[str, str], capacity: float, seconds: float) -> Any:
    """Send three times as much as the server can decode, then see whether it recovers."""
    clients = Clients(server.url, expected, seed=1)
    answers = asyncio.run(clients.open_loop(3 * capacity, seconds))
    check_answers(answers, "overload")
    refused = answers.statuses[429] + answers.statuses[503]
    demand(refused > 0.1 * sum(answers.statuses.values()), "the overload is none")
    demand(answers.good > 0, "the overload stops all answers")
    after = asyncio.run(clients.closed_loop(1, 4))
    check_answers(after, "after the overload", 4)
    return {
        "requests_per_s": 3 * capacity,
        "seconds": seconds,
        "statuses": dict(answers.statuses),
        "texts_per_s": answers.good / answers.wall_seconds,
        "p99": percentile(answers.seconds, 0.99),
        "refused_p99": percentile(answers.refused_seconds, 0.99),
        "p99_after": percentile(after.seconds, 0.99),
    }


def vanish(server: Served, expected: dict[str, str], capacity: float, clients: int) -> Any:
    """Let half of the clients leave; the others get their answers, and the queue ends empty."""
    before = server.metric("harness_dropped_texts_total")
    within = 0.2 * clients / capacity
    test = Clients(server.url, expected, seed=2).vanishing(clients // 2, clients // 2, within)
    answers = asyncio.run(test)
    check_answers(answers, "clients that vanish", clients // 2)
    dropped = server.metric("harness_dropped_texts_total") - before
    demand(dropped > 0, "no client left while its text waited")
    demand(server.metric("harness_queue_texts") == 0, "texts of clients that left still wait")
    return {"stayed": clients // 2, "left": clients // 2, "dropped_before_decoding": dropped}


async def _kill_midway(
    server: Served, expected: dict[str, str], count: int
) -> tuple[Answers, float]:
    answers = Answers()
    clients = Clients(server.url, expected, seed=3)
    asking = asyncio.create_task(clients.stubborn(16, count, answers))
    while answers.good < count // 3:
        await asyncio.sleep(0.05)
    server.kill()
    killed_at = answers.good
    await asyncio.to_thread(server.start)
    await asking
    return answers, killed_at


def kill_and_restart(server: Served, expected: dict[str, str], count: int) -> Any:
    """Kill the server while it works, and start it again; clients repeat what has no answer."""
    answers, killed_at = asyncio.run(_kill_midway(server, expected, count))
    check_answers(answers, "kill and restart", count)
    demand(answers.lost > 0, "the kill interrupts no request")
    return {"requests": count, "answered_before": killed_at, "failed_connections": answers.lost}


async def _end_midway(server: Served, expected: dict[str, str], count: int) -> tuple[Answers, int]:
    clients = Clients(server.url, expected, seed=4)
    asking = asyncio.create_task(clients.closed_loop(count, count))
    # In a thread, so that the clients of this process go on meanwhile.
    while await asyncio.to_thread(server.metric, "harness_queue_texts") < count // 4:
        demand(not asking.done(), "all texts are decoded before the server is asked to end")
    status = await asyncio.to_thread(server.end)
    return await asking, status


def end_gracefully(server: Served, expected: dict[str, str], count: int) -> Any:
    """Ask the server to end while texts wait; all of them are answered."""
    answers, status = asyncio.run(_end_midway(server, expected, count))
    check_answers(answers, "graceful end", count)
    demand(status == 0, f"the server ends with status {status}")
    return {"answered_while_ending": answers.good, "status": status}
