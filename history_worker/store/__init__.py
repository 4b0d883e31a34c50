"""The history database: its tables, who may do what in it, and everything that reads or writes it."""
