"""Threads: what the environment, the affinity and the control groups' quotas leave; allocator: nothing is mapped anew."""

import os
import subprocess
import sys

import pytest

from resfit import machine


def groups(folder, own, **files):
    """Write control groups' files, `/` written `__`, and the process's own list of groups."""
    for name, text in files.items():
        path = folder / "cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return machine.cpu_quota(folder / "cgroup", folder / "own")


def test_quota_of_version_2_is_the_least_of_a_group_and_its_parents(tmp_path):
    files = {"cpu.max": "max 100000\n", "pod__cpu.max": "150000 100000\n", "pod__one__cpu.max": "400000 100000\n"}
    assert groups(tmp_path, "0::/pod/one\n", **files) == 1.5


def test_quota_where_the_list_names_the_hosts_groups(tmp_path):
    """In a container of its own mount, the root is its group, and the path is the host's."""
    assert groups(tmp_path, "0::/docker/0123\n", **{"cpu.max": "300000 100000\n"}) == 3


def test_quota_of_version_1(tmp_path):
    own = "9:name=systemd:/\n4:memory:/x\n1:cpu,cpuacct:/job\n0::/\n"
    files = {"cpu__job__cpu.cfs_quota_us": "250000\n", "cpu__job__cpu.cfs_period_us": "100000\n"}
    files |= {"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}
    assert groups(tmp_path, own, **files) == 2.5


@pytest.mark.parametrize("text", ["max 100000\n", "", "what\n"])
def test_no_quota(tmp_path, text):
    assert groups(tmp_path, "0::/\n", **{"cpu.max": text}) >= 1e6
    assert machine.cpu_quota(tmp_path / "nothing", tmp_path / "nothing") >= 1e6


def test_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for quota, threads in ((1e6, 8), (3.5, 3), (0.5, 1), (12.0, 8)):
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        assert machine.default_threads() == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert machine.default_threads() == 5


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_memory_of_a_step_is_not_asked_for_again():
    """Page faults of freeing and taking 256 MiB ten times: none once the heap has its size, else thousands."""
    script = (
        "import resource, sys, torch\nfrom resfit.machine import tune\n"
        "tune(1) if sys.argv[1] == 'tuned' else torch.set_num_threads(1)\n"
        "def use(): return [torch.empty(1 << 24).fill_(1) for _ in range(4)]\n"
        "for _ in range(5): use()\n"  # the heap finds its size in the first few
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\nfor _ in range(10): use()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    run = [sys.executable, "-c", script]
    plain, tuned = (
        int(subprocess.run([*run, how], check=True, capture_output=True, text=True).stdout)
        for how in ("plain", "tuned")
    )
    assert plain > 1000
    assert tuned < plain / 10
