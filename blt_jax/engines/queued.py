"""What a cluster's queue says of a study's jobs, beside what their folders say."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Queued:
    """A job of the study in a cluster's queue. `index`: of a run; -1 otherwise."""

    job: str  # as the cluster calls it
    part: str  # "prepare" | "runs" | "report"
    index: int
    running: bool
    reason: str  # why it waits
    ended: bool = False  # it is over, and still keeps its name


def told(state, jobs):
    """A run's `status.State`, read from its folder, with what the queue says of it: `jobs`, its
    `Queued`.
    """
    if state.state == "done":
        return state
    live = [one for one in jobs if not one.ended]
    if not live:
        gone = f"job {jobs[-1].job} ended: {jobs[-1].reason}" if jobs else ""
        why = "not submitted" + (f"; {gone}" if gone else "")
        return dataclasses.replace(state, message=why) if state.state == "queued" else state
    one = live[-1]
    if one.running:
        return dataclasses.replace(state, state="running", message=f"job {one.job}")
    return dataclasses.replace(state, state="queued", message=f"job {one.job}: {one.reason}")
