"""Areas, and their tests."""

import unittest


def area(width: float, height: float) -> float:
    """Return the area of a rectangle."""
    return width * height


class AreaTest(unittest.TestCase):
    """What `area` returns."""

    def test_rectangle(self) -> None:
        """Width times height."""
        self.assertEqual(area(2, 3), 6)
