"""What shmstore costs next to its rivals: one run, one machine, the same records for everybody.

__main__                   the command line
bars                       the figures of the design, each as a ratio with its bar
plots, tables              what is drawn and written from benchmarks/results/*.json
harness                    a recorded run: groups of workloads, interleaved over the rivals
workloads                  what is measured, one group to a file
arena, processes           a rival with its records; the processes that use it
timing, histogram          how calls are timed, and what is kept of the times
rivals                     one adapter to a file, behind one small protocol
records, machine, results  what is stored; where it ran; the files
"""
