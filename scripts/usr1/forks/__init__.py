"""The forks: what vendor/*/backend.py and scripts/build-fork.sh run."""
