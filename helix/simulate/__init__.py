"""A placement under load, event by event; starts no process."""
