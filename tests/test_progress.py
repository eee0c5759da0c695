import io
import sys

from pipeline.progress import REPORT, byte_progress, progress, told_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_a_loop_is_one_line_at_its_end(capsys):
    walk = progress(iter("abc"), "letters")
    assert next(walk) == "a"
    assert capsys.readouterr().err == ""
    assert list(walk) == ["b", "c"]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "letters: 3 done\n")


def test_without_a_terminal_a_transfer_is_one_line_also_where_it_fails(capsys):
    with byte_progress("file", 3_000_000, start=1_000_000) as advance:
        advance(1_500_000)
        advance(500_000)
    assert capsys.readouterr().err == "file: 3.0 of 3.0 MB\n"
    try:
        with byte_progress("file", None) as advance:
            advance(200_000)
            raise OSError
    except OSError:
        assert capsys.readouterr().err == "file: 0.2 MB\n"


def test_on_a_terminal_bars_show_how_far_they_are(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress(range(4), "numbers")) == [0, 1, 2, 3]
    assert "numbers" in sys.stderr.getvalue()
    assert "4/4" in sys.stderr.getvalue()
    with byte_progress("a file", 2_000_000, start=1_000_000) as advance:
        advance(1_000_000)
    assert "a file" in sys.stderr.getvalue()
    assert "2.0/2.0 MB" in sys.stderr.getvalue()


def test_told_progress_ends_with_what_was_said_last(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv(REPORT, str(tmp_path / "report.json"))
    with told_progress(10, 2) as tell:
        tell(3, "loss 0.5")
        assert (tmp_path / "report.json").read_text() == '["loss 0.5", 3, 10]'
        tell(10, "loss 0.25")
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "loss 0.25\n"
    assert (tmp_path / "report.json").read_text() == '["loss 0.25", 10, 10]'
    with told_progress(10):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with told_progress(10, 2) as tell:
        tell(10, "loss 0.125")
    assert "loss 0.125" in sys.stderr.getvalue()
    assert "10/10" in sys.stderr.getvalue()
