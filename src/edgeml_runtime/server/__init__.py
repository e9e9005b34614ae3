"""The endpoint that a device runs. Starlette and uvicorn are imported below this folder only."""
