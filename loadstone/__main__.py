"""`python -m loadstone` is `loadstone`."""

from .cli.main import main

main()
