"""The transfer law: set-up and tokens over bandwidth."""

import pytest

from loadstone.physics.transfer import KvTransfer


def test_seventy_billion_parameters_over_nvlink() -> None:
    """FP8 KV at 900 GB/s is 0.18 us a token; the set-up is paid once."""
    law = KvTransfer(kv_bytes_per_token=163_840, bytes_per_s=900e9, setup_s=0.002)
    assert law.seconds(0) == 0.002
    assert law.seconds(1000) - 0.002 == pytest.approx(1000 * 0.18e-6, rel=0.02)


@pytest.mark.parametrize(
    "wrong", [{"bytes_per_s": 0.0}, {"kv_bytes_per_token": 0.0}, {"setup_s": -1e-9}]
)
def test_what_would_arrive_before_it_was_sent_is_refused(
    wrong: dict[str, float],
) -> None:
    """Each constant has its limit, and the other side of it is right."""
    right = {"kv_bytes_per_token": 1.0, "bytes_per_s": 1.0, "setup_s": 0.0}
    KvTransfer(**right)
    with pytest.raises(ValueError, match="not a transfer law"):
        KvTransfer(**(right | wrong))
    with pytest.raises(ValueError, match="not a transfer law"):
        KvTransfer(**(right | {"setup_s": float("nan")}))
