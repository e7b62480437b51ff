"""The pure core of the feedback service: the join over one partition, and the score over the ledger."""
