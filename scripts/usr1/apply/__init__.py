"""Patching what is installed in an environment: what scripts/apply.sh runs."""
