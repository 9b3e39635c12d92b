"""The step, the loop around it, and what keeps a run: checkpoints, tracking, previews."""
