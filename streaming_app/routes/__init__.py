"""The routes of the streaming app: one module for each group of addresses."""
