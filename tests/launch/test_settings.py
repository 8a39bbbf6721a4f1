from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from launch.settings import ClusterConfig, NcclConfig
from launch.slurm import sbatch_script
from tests.paths import CONFIGS

PROFILES = sorted((CONFIGS / "cluster").glob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpus_per_nod: 8\n", "unknown key 'gpus_per_nod': did you mean 'gpus_per_node'"),
        ("environment: {module: [cuda]}\n", "unknown key 'environment.module': did you mean"),
        ("environment: {variables: {HF_TOKEN: x}}\n", "HF_TOKEN looks like a secret"),
        ("environment: {variables: {AWS_SECRET_ACCESS_KEY: x}}\n", "looks like a secret"),
        ("environment: {variables: {api_key: x}}\n", "api_key looks like a secret"),
        ("environment: {variables: {'A B': x}}\n", "'A B' is not the name of a variable"),
        ("sbatch: {partition: gpu}\n", "sbatch: partition: set partition"),
        ("sbatch: {ntasks_per_node: 4}\n", "sbatch: ntasks_per_node: set ranks_per_node"),
        ("sbatch: {--comment: hello}\n", "sbatch: --comment: write the long name, without dashes"),
        ("srun: [--export=HF_TOKEN=1]\n", "HF_TOKEN looks like a secret"),
        (
            "environment: {setup: [export WANDB_API_KEY=abc]}\n",
            "setup: WANDB_API_KEY looks like a secret",
        ),
        ("sbatch: {array: 0-5}\n", "sbatch: array: set running_at_most"),
        ("sbatch: {requeue: true}\n", "sbatch: requeue: the launcher sets it"),
        ("gpus_per_node: 8\nranks_per_node: 4\n", "a rank has a GPU of its own"),
        ("time_minutes: 2\nsignal_seconds: 120\n", "signal_seconds=120 is not below"),
        ("executor: local\ncontainer: {name: pyxis, image: a}\n", "set container=null"),
        ("executor: debug\ncontainer: {name: apptainer, image: a}\n", "set container=null"),
        ("container: {name: docker, image: a}\n", "'pyxis', 'apptainer'"),
        ("nodes: 0\n", "nodes: .*greater than 0"),
    ],
)
def test_a_bad_profile_is_one_line_with_a_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_profile(ClusterConfig, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_there_are_profiles() -> None:
    assert len(PROFILES) >= 3


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_makes_a_script(path: Path, tmp_path: Path) -> None:
    cluster = load_profile(ClusterConfig, path)
    script = sbatch_script(cluster, submission=tmp_path)
    assert f"#SBATCH --nodes={cluster.nodes}\n" in script
    assert f"#SBATCH --ntasks-per-node={cluster.ranks_on_node}\n" in script
    assert f"#SBATCH --signal=USR2@{cluster.signal_seconds}\n" in script


@pytest.mark.parametrize(
    ("settings", "ranks"),
    [
        ({}, 1),
        ({"nodes": 2, "gpus_per_node": 8}, 16),
        ({"nodes": 3, "ranks_per_node": 2}, 6),
        ({"gpus_per_node": 4, "ranks_per_node": 4}, 4),
    ],
)
def test_a_rank_a_gpu_or_as_many_as_wanted(settings: dict[str, int], ranks: int) -> None:
    assert ClusterConfig.model_validate(settings).ranks == ranks


def test_nccl_keeps_its_own_choice_of_what_is_not_set() -> None:
    assert NcclConfig().variables == {"NCCL_DEBUG": "WARN"}


def test_nccl_reads_switches_the_other_way_round() -> None:
    variables = NcclConfig(infiniband=False, peer_to_peer=True).variables
    assert variables["NCCL_IB_DISABLE"] == "1"
    assert variables["NCCL_P2P_DISABLE"] == "0"


def test_gloo_takes_the_interface_too_but_no_exclusion() -> None:
    assert NcclConfig(socket_interface="ib0").variables["GLOO_SOCKET_IFNAME"] == "ib0"
    assert "GLOO_SOCKET_IFNAME" not in NcclConfig(socket_interface="^lo").variables
