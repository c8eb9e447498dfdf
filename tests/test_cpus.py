"""CPU counts are those that this process may use: affinity and cgroup quotas count."""

import os
from pathlib import Path

import pytest
from artifacts import python

from gtp_runtime import cpus
from gtp_runtime.prediction import count_workers

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)


def put(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "1000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/box/app", {"box/cpu.max": "300000 100000", "box/app/cpu.max": "max 100000"}, 3),
        ("0::/host/only", {"cpu.max": "400000 100000"}, 4),
        (
            "5:memory:/x\n4:cpu,cpuacct:/job",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "250000", "cpu,cpuacct/job/cpu.cfs_period_us": "50000"},
            5,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("0::/", {"cpu.max": "damaged"}, 64),
        ("", {}, 64),
    ],
)
def test_quotas(tmp_path: Path, own: str, files: dict[str, str], expected: int) -> None:
    put(tmp_path / "own", own)
    for name, text in files.items():
        put(tmp_path / "groups" / name, text)
    assert cpus.usable_cpus(tmp_path / "groups", tmp_path / "own") == expected


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("flags\t\t: fpu sse4_1 avx2 avx512f", True),
        ("flags\t\t: fpu avx2 avx_vnni", False),
        ("flags\t\t: fpu avx512f avx512_vnni", False),
        ("Features\t: fp asimd asimddp", False),
        ("", False),
    ],
)
def test_x86_cpus_without_vnni_saturate(tmp_path: Path, listed: str, expected: bool) -> None:
    put(tmp_path / "cpuinfo", listed)
    assert cpus.saturates_int8(tmp_path / "cpuinfo") is expected
    assert cpus.saturates_int8(tmp_path / "missing") is False


def test_all_threads_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_quotas", lambda groups, own: iter([2.5]))
    assert [cpus.threads_of(threads) for threads in (0, 1, 8)] == [3, 1, 8]
    assert (count_workers(None), count_workers(9)) == (3, 9)
    monkeypatch.setattr(cpus, "_quotas", lambda groups, own: iter([]))
    assert cpus.threads_of(0) == 0, "engines choose where nothing limits them"


@needs_affinity
def test_affinity_as_taskset_sets_it() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.cpu_count = lambda: 64\n"
        "from gtp_runtime.cpus import threads_of, usable_cpus\n"
        "from gtp_runtime.prediction import count_workers\n"
        "print(usable_cpus(), threads_of(0), count_workers(None))"
    )
    assert python(code).out.split() == ["1", "1", "1"]


@needs_affinity
def test_sessions_take_no_more(digits: Path) -> None:
    """ONNX Runtime's own default counts cores that a quota does not give."""
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.cpu_count = lambda: 64\n"
        "import onnxruntime as ort; made = []; start = ort.InferenceSession\n"
        "def session(path, options, **given):\n"
        "    made.append(options.intra_op_num_threads); return start(path, options, **given)\n"
        "ort.InferenceSession = session\n"
        f"import gtp_runtime; gtp_runtime.load({str(digits)!r}, provider='cpu', threads=0); print(*made)"
    )
    assert python(code).out.split() == ["1"]
