"""Where rows come from, how they are mixed, and what tells one run's data from another's."""
