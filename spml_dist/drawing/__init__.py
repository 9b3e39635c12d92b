"""Images for people: overlays, lettering, contact sheets."""
