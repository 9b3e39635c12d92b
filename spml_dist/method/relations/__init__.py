"""The relations between pixels and segments, one file each: who attracts and who repels whom."""
