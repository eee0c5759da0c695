"""Errors speak with one voice, and the page that lists them is that of the code."""

import pytest

from tests.messages import FAULT, HEAD, PAGE, collect, page, says_what_to_do, section_of

MESSAGES = list(collect())


def test_every_error_says_what_to_do() -> None:
    assert len(MESSAGES) > 400
    for message in MESSAGES:
        assert says_what_to_do(message), f"pipeline/{message.file}:{message.line}: no fix in {message.text!r}"


def test_every_error_is_one_line_that_begins_with_its_place() -> None:
    for message in MESSAGES:
        where = f"pipeline/{message.file}:{message.line}"
        assert "\n" not in message.text, where
        assert "weights_only" not in message.text, where
        if not message.passed_on and message.error != FAULT:  # which gets its place later
            before_fix = message.text.partition("; fix:")[0]
            assert ":" in before_fix or "{" in before_fix, f"{where}: no place in {message.text!r}"
            assert not message.text.endswith("."), where


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: f"{message.file}:{message.line}")
def test_every_file_that_raises_has_a_section(message) -> None:
    assert section_of(message.file)


def test_the_page_lists_the_errors_of_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "fix: python tests/messages.py"


def test_the_page_tells_every_exit_code() -> None:
    from pipeline.reporting.compare.command import GATE_FAILED

    told = HEAD.partition("The exit code is ")[2].partition(";")[0]
    codes = {int(part.split()[0]) for part in told.split(", ")}
    assert codes == {2, 1, GATE_FAILED, 130, 143}
