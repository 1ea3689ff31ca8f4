"""For all tests: a property is true or false, and how long a busy machine takes to find out is no part of it.

And Ctrl-C works in what they start, also when they were started in the background of a shell, which has it ignored.
"""

import signal

from hypothesis import settings

settings.register_profile("dimnode", deadline=None)
settings.load_profile("dimnode")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
