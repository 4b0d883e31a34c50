"""The viewer whose views kill the worker that writes them, in a demo (local/deadly_views.py)."""

#: The streaming app gives this name to nobody: the viewer of a cookie is random.
KILLS_ITS_WORKER = "flixtrail-poison-kills-its-worker"
