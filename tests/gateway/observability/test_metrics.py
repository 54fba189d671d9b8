"""The metrics that operators see."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.observability.metrics import Metrics
from tests.fakes import ScriptedUpstream, request_for, run_to_end, says, thinks


def values(metrics: Metrics) -> dict[str, float]:
    """Return every line of the metrics, as Prometheus reads it."""
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_a_request_is_counted_when_it_ends() -> None:
    """The gauge of running requests returns to 0, and each end is counted by its status."""
    metrics = Metrics()
    for status in (200, 200, 499):
        metrics.count_start()
        assert values(metrics)["thinkgate_requests_running"] == 1
        metrics.count_end(status)
    lines = values(metrics)
    assert lines["thinkgate_requests_running"] == 0
    assert (lines["thinkgate_requests_total,200"], lines["thinkgate_requests_total,499"]) == (2, 1)


async def test_a_result_is_counted_in_tokens_and_samples() -> None:
    """Thinking and answer are counted apart, by level, and each sample by its ending."""
    request = request_for(headers={"X-Reasoning-Budget": "low", "X-Samples": "3", "X-Stop": "none"})
    _, result = await run_to_end(
        ScriptedUpstream(thinks(4), thinks(4), says("Hm.", finish="length")), request
    )
    metrics = Metrics()
    metrics.count_result(request, result)
    lines = values(metrics)
    assert lines["thinkgate_tokens_total,thinking"] == result.reasoning > 0
    assert lines["thinkgate_tokens_total,answer"] == result.generated - result.reasoning > 0
    assert lines["thinkgate_tokens_total,prompt"] == result.upstream_prompt > 0
    assert lines["thinkgate_samples_total,finished"] == 2
    assert lines["thinkgate_samples_total,truncated"] == 1
    assert lines["thinkgate_thinking_tokens_count,low"] == 1
    assert lines["thinkgate_request_seconds_count"] == 1


@pytest.mark.parametrize("name", ["thinkgate_requests_running", "thinkgate_request_seconds_count"])
def test_two_apps_count_for_themselves(name: str) -> None:
    """Each app has its own registry."""
    busy, idle = Metrics(), Metrics()
    busy.count_start()
    assert values(idle)[name] == 0
