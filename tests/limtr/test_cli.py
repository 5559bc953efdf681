import os
import subprocess
import sys
import warnings

import pytest

from limtr import cli
from limtr.demo import DemoConfig, steps


def test_without_a_verb_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name in cli.VERBS:
        assert name in printed


@pytest.mark.parametrize("words", [["nonsense"], ["verify"], ["verify", "nonsense"]])
def test_an_unknown_verb_is_named_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert words[-1] in capsys.readouterr().err


def test_what_a_person_can_mend_comes_as_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from preprocessing import doctor

    def fail(config: doctor.DoctorConfig) -> int:
        raise OSError(28, "No space left on device", "x/y")

    monkeypatch.setattr(doctor, "run", fail)
    assert cli.main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("limtr doctor: ")
    assert "x/y" in captured.err


def test_an_interrupt_has_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    from preprocessing import doctor

    def interrupt(config: doctor.DoctorConfig) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", interrupt)
    assert cli.main(["doctor"]) == 130


@pytest.mark.parametrize("quick", [True, False])
def test_the_demo_is_made_of_verbs_whose_options_exist(quick: bool) -> None:
    import importlib

    import tyro

    for words in steps(DemoConfig(quick=quick)):
        verb = cli.VERBS[words[0]]
        config = getattr(importlib.import_module(verb.module), verb.config)
        assert isinstance(tyro.cli(config, args=words[1:]), config)


def test_the_projects_warnings_are_one_line_and_others_keep_their_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from preprocessing import doctor

    before = warnings.formatwarning

    def warn(config: doctor.DoctorConfig) -> int:
        for category in (UserWarning, RuntimeWarning):
            print(warnings.formatwarning("look here", category, "some/file.py", 7), end="")
        return 0

    monkeypatch.setattr(doctor, "run", warn)
    assert cli.main(["doctor"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "limtr: warning: look here"
    assert "some/file.py:7" in second
    assert warnings.formatwarning is before


def test_wrong_options_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--nonsense"])
    assert ended.value.code == 2
    assert "--nonsense" in capsys.readouterr().err


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    # `limtr doctor --help | head -0`, with a reader that is gone before the first line.
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "limtr.cli", "doctor", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
