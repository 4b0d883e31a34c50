"""Programs that lessons start as processes of their own, for example to kill them."""
