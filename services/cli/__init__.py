"""cli: the `millrace` command.

Reads what an operator asks for; may use every service, and no service uses it.
Writes topics, announcements and replays by the same contracts as everybody else.
Promises `--json` on what reads, progress on standard error only, and exit codes that mean something.
"""
