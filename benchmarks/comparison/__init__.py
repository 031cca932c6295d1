"""This server beside others, on one machine and in one run: `make bench`, or ``python -m benchmarks.comparison``.

    __main__ -> contenders (who, and how each is started) -> environments (what has to be installed or built for it)
             -> questions (one ONNX file, requests, right answers) -> loads -> measurements <- servers (processes)
             -> ratios (what the project promises) -> report, picture

Every answer is compared with onnxruntime's. The generator is that of `mnist1d bench`; what it could have offered
at most is measured like a contender.
"""
