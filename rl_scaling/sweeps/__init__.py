"""Sweeps: plans are data, one trial is one run, and executors see that every trial is run once."""

# What whoever listens to a run may answer to a record: None to go on, INTERRUPT to leave the run for a later call, or
# the reason why it is to be ended for good and sealed as "stopped".
Verdict = str | None
INTERRUPT = "interrupt"
