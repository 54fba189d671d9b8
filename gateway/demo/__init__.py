"""`thinkgate demo`: the gateway, ten questions at several budgets, and a table of results and costs."""
