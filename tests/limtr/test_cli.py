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
