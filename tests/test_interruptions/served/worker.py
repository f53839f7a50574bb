"""The worker classes that the environment is for: those of uvicorn-worker, if it is there."""

try:
    from uvicorn_worker import UvicornH11Worker, UvicornWorker
except ImportError:
    from uvicorn.workers import UvicornH11Worker, UvicornWorker

__all__ = ["UvicornH11Worker", "UvicornWorker"]
