"""`python -m gateway` is the `thinkgate` command."""

from gateway.cli import main

raise SystemExit(main())
