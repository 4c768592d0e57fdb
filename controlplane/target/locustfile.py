"""Emits a Locust file that sends the same load, for those who drive their tests with Locust.

The file stands alone: it needs Locust, and nothing of this package. Each of its users follows a clock of its own, so
that a slow answer does not thin out the arrivals; Locust counts latency from the send, though, not from the intended
time, and its percentiles forgive a stall that ``controlplane target load`` shows.
"""

import inspect
import json
import math
from pathlib import Path

from controlplane.target import prompts
from controlplane.target.rundir import write_text
from controlplane.target.spec import LoadSpec

USER = '''

import time

from locust import FastHttpUser, task

URL = {url}
PATH = {path}
BODY = json.loads({body!r})
RATE_PER_USER = {rate!r}
"""Arrivals per second of one user."""
TIMEOUT_S = {timeout!r}
PROMPTS = Prompts({kind!r}, {low!r}, {high!r}, {stock!r}, {seed!r})


class Client(FastHttpUser):
    """Sends completions at the times of a Poisson process."""

    host = URL
    network_timeout = connection_timeout = TIMEOUT_S

    def on_start(self):
        """Begin the clock."""
        self.rng = random.Random(PROMPTS.draw())
        self.due = time.monotonic()

    def wait_time(self):
        """Wait until the next arrival; one that is late is sent at once."""
        self.due += self.rng.expovariate(RATE_PER_USER) if {poisson!r} else 1.0 / RATE_PER_USER
        return max(self.due - time.monotonic(), 0.0)

    @task
    def complete(self):
        """Ask for one completion."""
        text = PROMPTS.draw()
        asked = {{"messages": [{{"role": "user", "content": text}}]}} if {chat!r} else {{"prompt": text}}
        began = time.perf_counter()
        with self.client.post(PATH, json={{**BODY, **asked}}, stream=BODY["stream"], catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {{answer.status_code}}")
            elif BODY["stream"]:
                self.read_events(answer, began)

    def read_events(self, answer, began):
        """Read a stream to its end; report the time to its first event as a request of its own."""
        first, rest = None, b""
        for part in iter(lambda: answer.stream.read(4096), b""):
            if first is None:
                first = (time.perf_counter() - began) * 1000
                self.environment.events.request.fire(
                    request_type="TTFT", name=PATH, response_time=first, response_length=0, exception=None, context={{}}
                )
            rest = (rest + part)[-64:]
        if not rest.endswith(b"data: [DONE]\\n\\n"):
            answer.failure("the stream ended early")
'''
HEAD = '''"""Load for {url}, emitted by `controlplane target load --locustfile`.

locust -f {name} --headless --users {users} --spawn-rate {users} --run-time {seconds}s

{rate:g} requests per second in all: each user sends {per_user:g}.
"""

'''
USERS_PER_RATE = 0.5
"""Users for each request per second: each then sends two a second, and may wait half a second for an answer."""


def write_locustfile(spec: LoadSpec, out: Path) -> int:
    """Write a Locust file.

    Returns:
        The number of users with which it sends ``spec.rate_per_s``.

    Raises:
        TargetError: when it cannot be written.
    """
    users = max(math.ceil(spec.rate_per_s * USERS_PER_RATE), 1)
    write_text(out, render(spec, out.name, users))
    return users


def render(spec: LoadSpec, name: str, users: int) -> str:
    """Return the text of a Locust file for ``users`` users."""
    per_user = spec.rate_per_s / users
    head = HEAD.format(
        url=spec.url, name=name, users=users, seconds=round(spec.duration_s or 60), rate=spec.rate_per_s,
        per_user=per_user,
    )  # fmt: skip
    _, _, source = inspect.getsource(prompts).partition("import itertools")
    body = {"model": spec.model, "max_tokens": spec.max_tokens, "temperature": 0, "stream": spec.stream}
    user = USER.format(
        url=json.dumps(spec.url),
        path=json.dumps("/v1/chat/completions" if spec.chat else "/v1/completions"),
        body=json.dumps(body),
        rate=per_user,
        timeout=spec.timeout_s,
        kind=spec.lengths,
        low=spec.prompt_bytes[0],
        high=spec.prompt_bytes[1],
        stock=spec.prompts,
        seed=spec.seed,
        poisson=spec.arrivals == "poisson",
        chat=spec.chat,
    )
    return f"{head}import itertools\nimport json{source.rstrip()}\n{user}"
