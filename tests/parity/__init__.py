"""Numbers recorded from other implementations, and the tools that record and compare them (see README.md)."""
