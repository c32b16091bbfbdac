"""Records metrics with the OpenTelemetry SDK for Python and exports them several times.

Usage: metrics.py ENDPOINT (OTLP over HTTP)
Prints one JSON object: what was recorded up to each export.
"""

import json
import random
import sys
import time

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

ROUNDS = 4
BOUNDS = [0.1, 0.5, 2.5, 10]


def main():
    (endpoint,) = sys.argv[1:]
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics"), export_interval_millis=3_600_000
    )
    resource = Resource.create(
        {"service.namespace": "shop", "service.name": "checkout", "service.instance.id": "c-1"}
    )
    view = View(instrument_name="rpc.latency", aggregation=ExponentialBucketHistogramAggregation())
    meters = MeterProvider([reader], resource=resource, views=[view])
    meter = meters.get_meter("checkout.metrics", "3.4")

    rooms = {"a": 21.5, "b": -4.25}
    requests = meter.create_counter("http.requests", unit="1", description="Requests served")
    connections = meter.create_up_down_counter("connections", unit="{connection}")
    duration = meter.create_histogram(
        "http.request.duration", unit="s", explicit_bucket_boundaries_advisory=BOUNDS
    )
    latency = meter.create_histogram("rpc.latency", unit="ms")
    meter.create_observable_gauge(
        "room.temperature",
        unit="Cel",
        callbacks=[lambda _: [Observation(value, {"room": room}) for room, value in rooms.items()]],
    )

    rng = random.Random(7)
    counted, open_now, durations, latencies, told = {"GET": 0, "POST": 0}, 0, [], [], []
    for number in range(ROUNDS):
        for _ in range(25):
            method = rng.choice(["GET", "POST"])
            amount = rng.randint(0, 5)
            requests.add(amount, {"http.request.method": method})
            counted[method] += amount
            change = rng.randint(-3, 3)
            connections.add(change)
            open_now += change
            # Sums of these are exact in any order.
            took = rng.randint(0, 6000) / 512
            duration.record(took)
            durations.append(took)
            delay = rng.randint(1, 100_000) / 64
            latency.record(delay)
            latencies.append(delay)
        # Both methods are there from the first export on.
        for method in counted:
            requests.add(0, {"http.request.method": method})
        rooms["a"] += 0.125
        rooms["b"] -= 1
        told.append(
            {
                "requests": dict(counted),
                "connections": open_now,
                "durations": list(durations),
                "latencies": list(latencies),
                "rooms": dict(rooms),
            }
        )
        time.sleep(0.05)
        # The last export is the one that the end brings.
        if number < ROUNDS - 1:
            assert meters.force_flush()
    meters.shutdown()
    print(json.dumps({"bounds": BOUNDS, "rounds": told}))


main()
