"""Hostile input: what each parser must bear, and programs that try to show that it does not (`make fuzz`)."""
