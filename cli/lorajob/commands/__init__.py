"""One module a command, each with `command`. They read flags, call one thing, and print; no storage or model code."""
