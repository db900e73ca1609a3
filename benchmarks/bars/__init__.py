"""The figures to reach of the design: measured in one go, each a ratio with its bar.

run                                  measure, print, keep
bar, listed                          a bar and what became of it; all of them
lookups, writes, together, engines, growth    the experiments, each a dict of figures
contest                              contestants of one process in short turns
"""

from .running import run

__all__ = ["run"]
