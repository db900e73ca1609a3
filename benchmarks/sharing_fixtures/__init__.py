"""Whole runs of pytest whose workers need the same fixtures, next to other ways to share them.

series                     all of it: every workload, way and number of workers, interleaved
ways                       how a suite shares its fixtures, one way next to the other
suites, bodies             the suites that are generated; what their fixtures return
running, launch            one run; the process around it, which counts all of its processes
probe                      inside the run: what each worker notes
figures                    what is made of the notes
"""
