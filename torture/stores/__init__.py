"""The writer is killed with SIGKILL before every store to the segment, for every operation.

operations         what is done to a segment
life               how many stores a writer has left, and images of what it leaves behind
engine             one writer after the other, over a segment with readers
"""
