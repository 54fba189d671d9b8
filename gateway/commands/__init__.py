"""The subcommands of `thinkgate`, one file each; `gateway.cli` lists them."""
