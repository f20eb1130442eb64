"""What all tests share: how hypothesis searches.

`house` draws the same examples every time, so a failure is of the code and not of luck.
`--hypothesis-profile=deep` looks for new ones.
"""

from hypothesis import settings

settings.register_profile(
    "house", max_examples=100, deadline=None, derandomize=True, database=None
)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("house")
