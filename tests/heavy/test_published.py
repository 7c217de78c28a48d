"""Published attacks on defences, in the direction that they report, on 32 of MNIST's digits."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyautoattack")
from benchmarks import published
from benchmarks.audit_table import How
from benchmarks.published import Finding, Subjects, finding_row, lenet5, recompressed

pytestmark = [pytest.mark.heavy, pytest.mark.audit, pytest.mark.filterwarnings("ignore:pkg_resources")]
pytestmark.append(pytest.mark.filterwarnings("ignore:Please import .*ndimage:DeprecationWarning"))
N = 32
CHAINS = ("jpeg:quality=75", "activation-pruning", "random-resize-pad")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Subjects:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "HOME", tmp_path_factory.mktemp("published"))
        return lenet5(N)


@pytest.mark.parametrize("chain", CHAINS)
def test_who_adapts_gets_further_than_the_defence_claims(chain: str, digits: Subjects, tmp_path: Path) -> None:
    finding = Finding("a defence", "0 % left", "MNIST", chain, "0.3")
    row = finding_row(finding, digits, How(tmp_path, workers=1))
    assert row[2] == f"MNIST, {N}, L∞ 0.3"
    clean, naive, adaptive = (float(cell.split()[0]) for cell in row[3:6])
    assert clean > 85
    assert adaptive < 10
    assert naive > 90 or chain != "jpeg:quality=75"
    assert row[-1] == "same direction"


def test_jpeg_undoes_small_steps_made_without_it_alone(digits: Subjects, tmp_path: Path) -> None:
    row = recompressed("LeNet5", digits, "0.1", How(tmp_path))
    plain, jpeg, naive, adaptive = (float(cell.split()[0]) for cell in row[2:])
    assert jpeg >= plain
    assert naive > 90
    assert adaptive < plain
