from __future__ import annotations

from datetime import timedelta

import pytest

from genai_operators.spec.quantities import check_cron, format_duration, parse_duration, parse_size


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("90s", timedelta(seconds=90)),
            ("30m", timedelta(minutes=30)),
            ("1h30m", timedelta(hours=1, minutes=30)),
            ("0.5s", timedelta(milliseconds=500)),
            ("1w", timedelta(weeks=1)),
        ],
    )
    def test_are_read_as_written(self, text: str, expected: timedelta) -> None:
        assert parse_duration(text) == expected

    @pytest.mark.parametrize("duration", ["90s", "2h", "1d12h", "45d", "0.25s", "1w"])
    def test_survive_writing_and_reading(self, duration: str) -> None:
        value = parse_duration(duration)
        assert parse_duration(format_duration(value)) == value

    @pytest.mark.parametrize("wrong", [90, "90", "2 hours", "0s", "-1h", "", None, True, "1h 30m"])
    def test_without_a_unit_or_length_are_refused(self, wrong: object) -> None:
        with pytest.raises(ValueError, match=r"unit|longer than zero"):
            parse_duration(wrong)


class TestSizes:
    @pytest.mark.parametrize(("text", "expected"), [("64KiB", 65536), ("1.5MB", 1_500_000), (10, 10)])
    def test_are_read_as_written(self, text: object, expected: int) -> None:
        assert parse_size(text) == expected

    @pytest.mark.parametrize("wrong", ["64kib", "many", 0, -1, True, 1.5])
    def test_of_no_known_unit_are_refused(self, wrong: object) -> None:
        with pytest.raises(ValueError, match="unit"):
            parse_size(wrong)


class TestCron:
    @pytest.mark.parametrize(
        "good",
        [
            "* * * * *",
            "*/5 0-6 1,15 * mon-fri",
            "0 3 * jan,dec 0",
            "@daily",
            "10-50/20 * * * *",
            "0 0 29 feb *",
            "0 0 31 * *",
            "0 0 31 6,7 *",
        ],
    )
    def test_good_expressions_pass_unchanged(self, good: str) -> None:
        assert check_cron(good) == good

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ("61 * * * *", "minute '61' is not within 0-59"),
            ("* * * 13 *", "month '13'"),
            ("* * * *", "4 fields"),
            ("*/0 * * * *", "minute"),
            ("5-1 * * * *", "minute"),
            ("@fortnightly", "no such preset"),
            ("a * * * *", "minute 'a'"),
            ("0 0 30 2 *", "day of month '30' never comes in month '2'"),
            ("0 0 31 feb,jun *", "never comes"),
            (5, "in quotes"),
        ],
    )
    def test_wrong_expressions_name_the_field(self, wrong: object, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            check_cron(wrong)

    @pytest.mark.parametrize("expression", ["*/5 0-6 1,15 * mon-fri", "0 3 * jan,dec 0", "7 7 7 7 7", "@weekly"])
    def test_airflow_understands_what_passes(self, expression: str) -> None:
        from croniter import croniter

        assert croniter.is_valid(check_cron(expression))
