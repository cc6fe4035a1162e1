"""The cores that a container leaves us: quotas of both versions of cgroups, nested and hidden."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastppo import cgroups, machine, threads
from fastppo.config import Config
from fastppo.tasks import describe

MOUNT = "31 23 0:28 {root} {point} rw,nosuid shared:9 - {kind} {kind} rw,{options}\n"


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cgroups, "PROC", tmp_path / "proc")


def system(folder: Path, groups: str, mounts: str, files: dict[str, str]) -> int:
    """Cores of a machine with these files."""
    files = {f"sys/{name}": text for name, text in files.items()}
    files |= {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cgroups.available_cores()


def second(folder: Path, root: str = "/") -> str:
    return MOUNT.format(root=root, point=folder / "sys", kind="cgroup2", options="nsdelegate")


def first(folder: Path, root: str = "/", options: str = "cpu,cpuacct") -> str:
    return MOUNT.format(root=root, point=folder / "sys/cpu", kind="cgroup", options=options)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8),
     ("junk", 8), ("100000 0", 8), ("", 8), ("2e5 1e5", 8)],
)  # fmt: skip
def test_a_quota_lowers_the_affinity_mask(quota: str, cores: int, tmp_path: Path) -> None:
    assert system(tmp_path, "0::/\n", second(tmp_path), {"cpu.max": quota}) == cores


@pytest.mark.parametrize("tightest", ["a/b/c", "a/b", "a", "."])
def test_the_smallest_quota_of_all_ancestors_wins(tightest: str, tmp_path: Path) -> None:
    files = {f"{level}/cpu.max": "max 100000\n" for level in ("a/b/c", "a/b")}
    files |= {"a/cpu.max": "600000 100000\n", f"{tightest}/cpu.max": "300000 100000\n"}

    assert system(tmp_path, "0::/a/b/c\n", second(tmp_path), files) == 3


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("200000", 2), ("50000", 1)])
def test_version_one_has_quotas_too(quota: str, cores: int, tmp_path: Path) -> None:
    groups = "4:memory:/m\n3:cpu,cpuacct:/docker/x\n0::/\n"
    files = {"cpu/docker/x/cpu.cfs_quota_us": quota, "cpu/docker/x/cpu.cfs_period_us": "100000",
             "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}  # fmt: skip

    assert system(tmp_path, groups, first(tmp_path) + second(tmp_path), files) == cores
    (tmp_path / "sys/cpu/docker/cpu.cfs_quota_us").write_text("100000")
    (tmp_path / "sys/cpu/docker/cpu.cfs_period_us").write_text("100000")
    assert cgroups.available_cores() == 1


def test_a_container_that_sees_only_its_own_group_finds_its_quota(tmp_path: Path) -> None:
    """Docker with version 1: the path is the host's, the mount begins at the container."""
    files = {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}

    assert system(tmp_path, "3:cpu:/docker/x\n", first(tmp_path, "/docker/x"), files) == 3
    assert system(tmp_path, "3:cpu:/docker/y\n", first(tmp_path, "/docker/x"), files) == 3


def test_a_group_outside_of_the_namespace_is_read_at_the_mount(tmp_path: Path) -> None:
    files = {"cpu.max": "400000 100000"}

    assert system(tmp_path, "0::/../other\n", second(tmp_path), files) == 4


def test_a_mount_of_another_controller_says_nothing(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}

    mounts = first(tmp_path, options="cpuset")
    assert system(tmp_path, "3:cpu:/\n2:cpuset:/\n", mounts, files) == 8


def test_a_mount_with_blanks_in_its_name_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    mounts = MOUNT.format(root="/", point=str(folder).replace(" ", "\\040"), kind="cgroup2",
                          options="x")  # fmt: skip
    folder.mkdir()
    (folder / "cpu.max").write_text("200000 100000")

    assert system(tmp_path, "0::/\n", mounts, {}) == 2


def test_without_cgroups_the_mask_counts() -> None:
    assert cgroups.available_cores() == 8


def test_the_plan_and_the_fingerprint_count_by_the_same_function(
    tmp_path: Path, tiny: Callable[..., Config]
) -> None:
    config = tiny(env_id="Pong-v5", num_envs=8)
    assert system(tmp_path, "0::/a\n", second(tmp_path), {"a/cpu.max": "200000 100000"}) == 2
    assert machine.machine()["cores"] == 2
    assert threads.plan(config, describe("Pong-v5")).env_threads == 2
