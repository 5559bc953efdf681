"""What is said when Waymo's own code cannot be asked: no environment, another version, a process that dies."""

import pytest

from evaluation.oracle import ORACLE_VARIABLE, OracleError, ask_oracle, find_oracle


def environment(tmp_path, monkeypatch, then="exit 0", versions="1.6.7 2.13.0"):
    """A folder whose `python` tells versions when asked for them and else does what `then` says."""
    python = tmp_path / "oracle" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nif [ "$2" = "-c" ]; then echo {versions}; exit 0; fi\n{then}\n')
    python.chmod(0o755)
    monkeypatch.setenv(ORACLE_VARIABLE, str(tmp_path / "oracle"))
    return python


def test_a_missing_environment_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv(ORACLE_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(OracleError, match=r"no oracle environment in .*nowhere.*make oracle"):
        find_oracle()


@pytest.mark.parametrize(
    ("versions", "named"),
    [("1.6.1 2.13.0", r"waymo-open-dataset-tf-2-12-0 1\.6\.1 \(expected 1\.6\.7\)"), ("1.6.7 none", "tensorflow none")],
)
def test_other_versions_are_refused_by_name(tmp_path, monkeypatch, versions, named):
    environment(tmp_path, monkeypatch, versions=versions)
    with pytest.raises(OracleError, match=f"{named}.*make oracle"):
        find_oracle()


def test_an_interpreter_that_does_not_start_is_named(tmp_path, monkeypatch):
    environment(tmp_path, monkeypatch).write_text("#!/nowhere/python\n")
    with pytest.raises(OracleError, match="cannot be started"):
        find_oracle()


def test_a_failed_check_of_the_op_is_quoted(tmp_path, monkeypatch):
    then = "echo 'F0101 motion.cc:7] Check failed: 3 == 4' >&2; echo 'stack trace' >&2; kill -ABRT $$"
    environment(tmp_path, monkeypatch, then)
    with pytest.raises(OracleError, match=r"motion_metrics\.py.*SIGABRT.*Check failed: 3 == 4$"):
        ask_oracle("motion_metrics.py")


def test_a_script_that_fails_is_quoted(tmp_path, monkeypatch):
    environment(tmp_path, monkeypatch, "echo 'ImportError: no module' >&2; exit 3")
    with pytest.raises(OracleError, match="ended with status 3: ImportError: no module"):
        ask_oracle("motion_metrics.py")


def test_a_script_that_never_ends_is_stopped(tmp_path, monkeypatch):
    environment(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(OracleError, match="did not finish"):
        ask_oracle("motion_metrics.py", timeout_s=0.2)


def test_nothing_of_our_python_path_reaches_the_environment(tmp_path, monkeypatch):
    environment(tmp_path, monkeypatch, f'printf "%s\\n" "$@" > {tmp_path / "asked"}')
    ask_oracle("motion_metrics.py", tmp_path / "in")
    isolated, script, source = (tmp_path / "asked").read_text().splitlines()
    assert isolated == "-I"
    assert script.endswith("oracle_scripts/motion_metrics.py")
    assert source == str(tmp_path / "in")
