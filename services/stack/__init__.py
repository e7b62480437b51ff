"""stack: the platform on one machine, and the watch over a pipeline's processes.

Reads nothing and writes `$MILLRACE_HOME`: data, logs, pidfiles and `endpoints.json`, which every service
reads.
Keeps a real Kafka, a schema registry and Redis running (`embedded`), and a pipeline's services
(`supervisor`).
Promises that starting twice changes nothing, that what a kill left is taken over, and that `down` leaves
nothing.
"""
