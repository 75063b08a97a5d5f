"""Requests drawn from the description of the service: each is answered as it is described."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.service.small_service import Running


def test_every_answer_is_one_that_is_described(service: Running) -> None:
    described = schemathesis.openapi.from_url(f"{service.client.base_url}/openapi.json")
    asked = set()
    for found in described.get_all_operations():
        operation = found.ok()

        @given(operation.as_strategy())
        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def answered(case: schemathesis.Case) -> None:
            # that 124.0 is a whole number too, or that changes make a funnel, is not described
            case.call_and_validate(timeout=20, excluded_checks=[positive_data_acceptance])

        answered()
        asked.add(operation.path)
    assert asked >= {"/recommend", "/events", "/explain/{request}", "/users/{user}", "/funnel"}
