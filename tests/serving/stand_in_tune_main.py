"""A stand-in for `mla_tune.serving.tune_main` that ends as its request's backend says."""

import os
import signal
import sys
import time

from mla_tune.serving.tune_request import TuneAnswer, TuneRequest

file, text = sys.argv[1:]
request = TuneRequest.from_json(text)
how = request.backend
print("something on standard output")
if how == "done":
    os.write(int(file), TuneAnswer(failed=("q1s1k",), problem="one failed").as_json().encode())
elif how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif how == "raises":
    sys.exit(1)
elif how == "goes on":
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        (request.out / "kept").write_text("what was decided")
        sys.exit(130)
elif how == "hangs":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(600)
