"""Files by path or address: text, atomic writes."""
