"""Writing the patches of all releases from the newest: what scripts/refresh.sh runs."""
