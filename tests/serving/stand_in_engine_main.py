"""A stand-in for `mla_tune.serving.engine_main` that answers as its first argument says."""

import json
import os
import signal
import subprocess
import sys
import time

from served_engines import engine

file, backends, how, *_ = sys.argv[1:]
print("INFO something that vLLM prints")
if how == "engine":
    described = engine(vllm=os.environ.get("MLA_TUNE_TABLES", "no tables"))
    others = [engine(backend=name).as_json() for name in backends.split(",") if name]
    os.write(int(file), json.dumps({"engine": described.as_json(), "others": others}).encode())
elif how in ("refused", "not_tunable", "no_choice"):
    os.write(int(file), b'{"%s": "because of that"}' % how.encode())
elif how == "usage":
    sys.stderr.write("vllm serve: error: unrecognized arguments: --nope\n")
    sys.exit(2)
elif how == "help":
    sys.exit(0)
elif how == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
elif how == "raise":
    raise RuntimeError("an import failed")
elif how == "hang":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)
