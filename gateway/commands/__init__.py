"""The subcommands of `thinkgate`, one file each."""
