"""`thinkgate demo`: the gateway, ten questions at several budgets, and a table of what each brought."""

from gateway.demo.command import add_parser, run

__all__ = ["add_parser", "run"]
