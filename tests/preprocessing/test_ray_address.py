"""An address without Ray is told at once, with the reason and the remedy."""

from __future__ import annotations

import re
import socket

import pytest

from preprocessing.ray_address import require_ray


def free_port() -> int:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        port: int = used.getsockname()[1]
    return port


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"], ids=["cluster", "client"])
def test_a_port_where_nothing_listens_is_refused_with_the_remedy(form: str) -> None:
    address = form.format(free_port())
    with pytest.raises(ConnectionError, match=rf"--ray-address {re.escape(address)}: Connection refused; .*ray start --head"):
        require_ray(address, answer_limit_s=0)


def test_an_unknown_machine_is_named() -> None:
    with pytest.raises(ConnectionError, match=r"--ray-address nowhere\.invalid:6379: .*(not known|resolution).*; start one"):
        require_ray("nowhere.invalid:6379", answer_limit_s=0)


def test_a_service_that_never_answers_as_ray_is_given_up_after_the_stated_time() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = mute.getsockname()[1]
        with pytest.raises(ConnectionError, match=rf"127\.0\.0\.1:{port}: .*did not answer as a Ray within 3 s"):
            require_ray(f"127.0.0.1:{port}", answer_limit_s=3)


def test_auto_asks_for_the_cluster_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(ConnectionError, match=rf"--ray-address 127\.0\.0\.1:{port}: Connection refused"):
        require_ray("auto", answer_limit_s=0)


@pytest.mark.parametrize("address", ["", "10.0.0.1", "10.0.0.1:head", "http://10.0.0.1:6379", ":6379", "10.0.0.1:99999"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=rf"--ray-address {re.escape(address)}: expected HOST:PORT"):
        require_ray(address, answer_limit_s=0)


@pytest.mark.slow
def test_a_running_cluster_is_accepted(ray_cluster: None) -> None:
    import ray

    require_ray(ray.get_runtime_context().gcs_address)
