"""What `doctor` tells."""

from __future__ import annotations

def test_doctor_lists_what_is_missing(capfd: pytest.CaptureFixture[str]) -> None:
    """On a bare machine it says what would be done, changes nothing, and exits 4."""
    assert doctor.report("") == 4
    shown = capfd.readouterr().err
    assert "MISS Docker" in shown
    assert "`python3 -m ci setup` would do:" in shown
    assert not (place.home() / "bin").exists()
