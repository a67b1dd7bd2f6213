"""Listeners on the event stream, one file each."""
