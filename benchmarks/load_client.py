"""Clients of a server: some that wait for their answers, some that come anyway, some that leave."""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx

PATIENCE = 900.0
"""Seconds after which a request counts as hanging."""


@dataclass
class Answers:
    """Answers to the requests of one test.

    Attributes:
        statuses: status -> number of answers.
        wrong: number of answers with status 200 that are not the text's own prediction.
        seconds: latency of each answer with status 200.
        refused_seconds: latency of each other answer.
        without_retry_after: number of answers 429 and 503 that do not say when to come back.
        hung: number of requests without an end.
        lost: number of requests whose connection failed.
        wall_seconds: time of the whole test.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    hung: int = 0
    lost: int = 0
    wall_seconds: float = 0.0

    @property
    def good(self) -> int:
        """The number of predictions."""
        return self.statuses[200]


class Clients:
    """Sends texts to a server and compares every answer with the text's own prediction.

    Args:
        url: address of the server.
        expected: text -> its prediction.
        seed: seeds the order of the texts and the times of arrival.
    """

    def __init__(self, url: str, expected: dict[str, str], seed: int = 0) -> None:
        self.url = url
        self._expected = expected
        self._rng = random.Random(seed)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(
            base_url=self.url, limits=limits, timeout=PATIENCE, trust_env=False
        ) as client:
            yield client

    def _texts(self, count: int) -> list[str]:
        """Return texts in a random order in which each comes equally often."""
        pool: list[str] = []
        while len(pool) < count:
            pool += self._rng.sample(list(self._expected), len(self._expected))
        return pool[:count]

    async def _ask(self, client: httpx.AsyncClient, text: str, answers: Answers) -> int | None:
        """Send one text; return the status, or None if the connection failed."""
        start = time.perf_counter()
        try:
            response = await client.post("/generate", json={"inputs": text})
        except httpx.TimeoutException:
            answers.hung += 1
            return None
        except httpx.TransportError:
            answers.lost += 1
            return None
        seconds = time.perf_counter() - start
        answers.statuses[response.status_code] += 1
        if response.status_code == 200:
            answers.seconds.append(seconds)
            answers.wrong += response.json()["outputs"][0]["text"] != self._expected[text]
        else:
            answers.refused_seconds.append(seconds)
            if response.status_code in (429, 503):
                answers.without_retry_after += "retry-after" not in response.headers
        return response.status_code

    async def closed_loop(self, concurrency: int, count: int) -> Answers:
        """Send ``count`` texts from clients that each wait for one answer before the next."""
        answers = Answers()
        texts = iter(self._texts(count))
        async with self._client() as client:

            async def work() -> None:
                for text in texts:
                    await self._ask(client, text, answers)

            start = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(concurrency)))
            answers.wall_seconds = time.perf_counter() - start
        return answers

    async def open_loop(self, rate: float, seconds: float) -> Answers:
        """Send texts at random times, ``rate`` a second on average, whatever the answers are."""
        answers = Answers()
        start = time.perf_counter()
        async with self._client() as client, asyncio.TaskGroup() as tasks:
            texts = itertools.cycle(self._texts(len(self._expected)))
            due = start
            while (due := due + self._rng.expovariate(rate)) < start + seconds:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.create_task(self._ask(client, next(texts), answers))
        answers.wall_seconds = time.perf_counter() - start
        return answers

    async def vanishing(self, stay: int, leave: int, within: float) -> Answers:
        """Send texts all at once; some clients close their connection before the answer.

        Args:
            stay: number of clients that wait for their answers.
            leave: number of clients that leave.
            within: longest time in seconds until a client leaves.
        """
        answers, left = Answers(), Answers()
        texts = self._texts(stay + leave)
        async with self._client() as client, self._client() as leaving:

            async def vanish(text: str) -> None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rng.uniform(0, within)):
                        await self._ask(leaving, text, left)

            calls = [self._ask(client, text, answers) for text in texts[:stay]]
            start = time.perf_counter()
            await asyncio.gather(*calls, *(vanish(text) for text in texts[stay:]))
            answers.wall_seconds = time.perf_counter() - start
        answers.wrong += left.wrong
        return answers

    async def stubborn(self, concurrency: int, count: int, answers: Answers) -> None:
        """Send ``count`` texts, each again until it is answered; counts go to ``answers``."""
        texts = iter(self._texts(count))
        async with self._client() as client:

            async def work() -> None:
                for text in texts:
                    while await self._ask(client, text, answers) != 200:
                        await asyncio.sleep(0.2)

            await asyncio.gather(*(work() for _ in range(concurrency)))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least a share of the values does not exceed."""
    ordered = sorted(values)
    rank = max(1, -(-int(share * 1000) * len(ordered) // 1000))
    return ordered[rank - 1]
