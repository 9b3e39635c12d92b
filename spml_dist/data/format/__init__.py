"""The shard format: members of a sample, manifest, checks."""
