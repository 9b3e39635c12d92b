"""From annotations and published archives to shards, and from shards to batches."""
