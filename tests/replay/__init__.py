"""The judge of wire compatibility: replays recorded cases of the Go originals against our programs.

Run as `python -m replay` (PYTHONPATH=tools:tests) or `make replay`. An area is a module of this package that exposes
`async def run(ctx: ReplayContext) -> AsyncIterator[CaseResult]`; everything areas share is in `context`, `report`,
`differences` and `compare`.
"""
