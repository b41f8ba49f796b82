"""Counters in Prometheus' form."""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.protocol import MetricsReply
from pyggml_server.scheduler import LoadedModel

__all__ = ["ServerMetrics"]

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_RATES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)


class ServerMetrics:
    """The counters of one server; they live in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry, "namespace": "pyggml"}
        self._requests: Final = Counter("http_requests", "Requests answered.", ["method", "route", "status"], **made)
        self._seconds: Final = Histogram(
            "http_request_seconds", "From the request to the end of its answer.", ["route"], buckets=_SECONDS, **made
        )
        self._tokens: Final = Counter(
            "tokens", "Tokens: of prompts, of those found in the cache, of answers.", ["model", "kind"], **made
        )
        self._answers: Final = Counter("answers", "Answers finished.", ["model", "reason"], **made)
        self._truncated: Final = Counter("answers_truncated", "Answers to prompts that did not fit.", ["model"], **made)
        self._first: Final = Histogram("prompt_seconds", "Computing a prompt.", ["model"], buckets=_SECONDS, **made)
        self._wait: Final = Histogram(
            "queue_seconds", "Waiting for a free sequence.", ["model"], buckets=_SECONDS, **made
        )
        self._rate: Final = Histogram(
            "eval_tokens_per_second", "Speed of an answer.", ["model"], buckets=_RATES, **made
        )
        self._loaded: Final = Gauge("models_loaded", "Models in memory.", **made)
        self._gauges: Final = {
            name: Gauge(f"model_{name}", text, ["model"], **made)
            for name, text in (
                ("bytes", "Memory that a model takes."),
                ("vram_bytes", "Memory that it takes on GPUs."),
                ("active_requests", "Requests that use it."),
                ("queued_requests", "Requests that wait for it."),
                ("context_tokens", "Tokens of context per request."),
                ("running_sequences", "Sequences that its runner computes."),
                ("waiting_sequences", "Sequences that wait in its runner."),
            )
        }
        self._counters: Final = Gauge("runner_counter", "Counters of a model's runner.", ["model", "name"], **made)

    def record(self, model: str, final: FinalItem) -> None:
        """Count an answer."""
        self._answers.labels(model, final.reason).inc()
        self._tokens.labels(model, "prompt").inc(final.prompt_tokens)
        self._tokens.labels(model, "cached").inc(final.cached_tokens)
        self._tokens.labels(model, "eval").inc(final.eval_tokens)
        self._first.labels(model).observe(final.prompt_ns / 1e9)
        self._wait.labels(model).observe(final.queue_ns / 1e9)
        if final.truncated:
            self._truncated.labels(model).inc()
        if final.eval_ns > 0:
            self._rate.labels(model).observe(final.eval_tokens * 1e9 / final.eval_ns)

    def request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def render(self, loaded: list[LoadedModel], runners: Mapping[str, MetricsReply]) -> bytes:
        """The page, with gauges as they are now.

        Args:
            loaded: Models in memory.
            runners: What their runners counted, by name of the model.
        """
        self._loaded.set(len(loaded))
        for gauge in (*self._gauges.values(), self._counters):
            gauge.clear()
        for model in loaded:
            for name, value in (
                ("bytes", model.size),
                ("vram_bytes", model.size_vram),
                ("active_requests", model.n_active),
                ("queued_requests", model.queued + model.waiting),
                ("context_tokens", model.n_ctx),
            ):
                self._gauges[name].labels(model.name).set(value)
        for name, reply in runners.items():
            self._gauges["running_sequences"].labels(name).set(reply.running)
            self._gauges["waiting_sequences"].labels(name).set(reply.waiting)
            for counter, count in reply.counters.items():
                self._counters.labels(name, counter).set(count)
        return generate_latest(self.registry)
