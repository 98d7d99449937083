"""Reports of races that were never run."""

from subpc.bench.report import BenchReport, EngineResult


def report(*engines: EngineResult) -> BenchReport:
    """One run of each engine on one thread."""
    return BenchReport(
        headline="h",
        cpu="c",
        threads=1,
        shapes=((1,),),
        runs=1,
        warmup=0,
        rounds=1,
        idle_cpus=1.0,
        engines=tuple(engines),
    )
