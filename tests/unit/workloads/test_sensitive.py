"""Personal data and secrets: found by validated patterns, and not where nothing is."""

from __future__ import annotations

import pytest

from genai_operators.workloads.sensitive import count_personal_data, count_secrets


@pytest.mark.parametrize(
    "text",
    [
        "write to jane.doe+shop@example.co.uk please",
        "my card 4111 1111 1111 1111 was charged",
        "card 5500-0000-0000-0004",
        "IBAN DE89 3704 0044 0532 0130 00",
        "iban GB82WEST12345698765432 is mine",
        "ssn 078-05-1120",
        "call (415) 555-2671",
        "call 415-555-2671 now",
        "reach me at +44 20 7946 0958",
        "from 8.8.8.8 again",
    ],
)
def test_personal_data_is_found(text: str) -> None:
    assert count_personal_data(text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4 of the app",
        "the server 192.168.0.1 and 127.0.0.1",
        "order 4111111111111112",  # fails Luhn
        "tensor of shape 128-256-512",
        "ISBN 978-3-16-148410-0",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "DE00 3704 0044 0532 0130 00",  # fails mod 97
        "000-12-3456",
        "2026-11-21 09:00 to 10:30",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "a@b and user@localhost",
        "+ 12 and 7 apples",
    ],
)
def test_look_alikes_are_not_personal_data(text: str) -> None:
    assert count_personal_data(text) == 0


# Put together here, so that no scanner of this repository takes them for leaked keys.
@pytest.mark.parametrize(
    "text",
    [
        "key AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "xoxb-" + "123456789012-abcdefghij",
        "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx",
        "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "https://user:" + "hunter2@example.com/x",
        "password = " + "Tr0ub4dor&3",
    ],
)
def test_secrets_are_found(text: str) -> None:
    assert count_secrets(text) == 1


@pytest.mark.parametrize(
    "text",
    ["i forgot my password: please help", "reset the password for the phone", "https://example.com/a?b=c", "sk-1"],
)
def test_talking_about_passwords_is_no_secret(text: str) -> None:
    assert count_secrets(text) == 0
