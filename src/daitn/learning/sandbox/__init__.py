"""What a process that runs recipes may do, enforced by the kernel.

`policy` says what is asked for, one module each asks one mechanism of Linux for it, `probe` finds
out which of them work here, and `confining` puts a process behind all of them.
"""
