from __future__ import annotations

import pytest

from pplr_lightning.serving.address import is_loopback, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.0.1", "localhost", "::1"])
def test_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines(host):
    with pytest.raises(ValueError, match=r"other machines could reach it.*--allow_public"):
        listen(host, 0)


def test_takes_a_port_until_it_is_closed():
    with listen("127.0.0.1", 0) as taken:
        host, port = taken.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(ValueError, match=f"--port {port}: another program listens there"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()


def test_public_if_forced():
    with listen("0.0.0.0", 0, allow_public=True) as taken:
        assert taken.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 65536, "--port 65536: give one of 0 to 65535"),
        ("127.0.0.1", -1, "--port -1: give one of"),
        ("nowhere.invalid", 0, "--host nowhere.invalid: no address of this name"),
    ],
)
def test_no_such_address(host, port, message):
    with pytest.raises(ValueError, match=message):
        listen(host, port)


def test_an_address_of_no_interface():
    with pytest.raises(ValueError, match=r"--host 192.0.2.1 --port 0: "):
        listen("192.0.2.1", 0, allow_public=True)
