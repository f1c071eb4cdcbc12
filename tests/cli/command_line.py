"""How the tests of the command call it, and what they read of what it leaves behind."""

import json
import sys
from pathlib import Path

MODEL = (
    "model: {name: tiny, num_q_heads: 2, kv_lora_rank: 32, qk_nope_head_dim: 16, "
    "qk_rope_head_dim: 8, v_head_dim: 16}\n"
)
SHAPES = MODEL + "batch_specs: [q1s64, 2q1s300, q8s70_2q1s130]\n"
MAIN = [sys.executable, "-m", "mla_tune"]


def options(folder: Path, confirm_seconds: float = 0.3) -> list[str]:
    return [
        *("--backend", "TORCH_MLA", "--device", "cpu"),
        *("--out", str(folder / "out"), "--study-dir", str(folder / "study")),
        *("--confirm-seconds", str(confirm_seconds)),
        *("--processes", "1"),  # a start of each takes seconds
    ]


def trials(folder: Path) -> list[tuple[int, dict]]:
    """(study, outcome) of every trial in the journal, in order, without asking Optuna."""
    journals = list((folder / "study").glob("*.journal"))
    lines = journals[0].read_bytes().split(b"\n")[:-1] if journals else []
    told = [json.loads(line) for line in lines if b'"outcome"' in line]
    return [(op["study_id"], op["user_attrs"]["outcome"]) for op in told]


def table_of(folder: Path) -> Path:
    (path,) = (folder / "out").glob("*.yaml")
    return path


def refused(cli, *arguments) -> str:
    code, _, err = cli(*arguments)
    assert code == 2, err
    assert "Traceback" not in err
    return err
