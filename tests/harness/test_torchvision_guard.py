"""torchvision is imported beside a torch that it was not built for, and left alone beside its own."""

import subprocess
import sys
from pathlib import Path

from tests.harness.tiny import ROOT

IMPORTED = "from benchmark.measures.torchvision_guard import import_torchvision; import_torchvision(); "
# What torchvision does where its compiled operators could not be loaded.
MISMATCHED = (
    "import torch\n"
    "torch.library.register_fake('torchvision::nms')(lambda *given: None)\n"
    "torch.library.register_fake('torchvision::qnms')(lambda *given: None)\n"
)
DECLARED = "import torch; print(hasattr(torch.ops.torchvision, 'nms'))"


def python(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, with warnings as errors; packages are looked for in ``folders`` first."""
    code = f"import sys; sys.path[:0] = {[str(folder) for folder in (*folders, ROOT)]}\n{code}"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def package(folder: Path, content: str) -> Path:
    """A folder with a package that passes for torchvision."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(content, encoding="utf-8")
    return folder


def test_torch_fidelity_can_be_imported_after_it() -> None:
    said = python(f"{IMPORTED} import torch_fidelity; print(torch_fidelity.__version__)")
    assert said.returncode == 0, said.stderr


def test_where_operators_are_missing_they_are_declared(tmp_path: Path) -> None:
    folder = package(tmp_path, MISMATCHED)
    alone = python("import torchvision", folder)
    assert "operator torchvision::nms does not exist" in alone.stderr
    guarded = python(f"{IMPORTED} {IMPORTED} {DECLARED}", folder)  # twice does no harm
    assert (guarded.stdout, guarded.stderr) == ("True\n", "")


def test_a_torchvision_that_fits_is_left_alone(tmp_path: Path) -> None:
    said = python(f"{IMPORTED} {DECLARED}", package(tmp_path, ""))
    assert (said.stdout, said.stderr) == ("False\n", "")


def test_another_failure_is_not_hidden(tmp_path: Path) -> None:
    attempt = f"try:\n    {IMPORTED}\nexcept RuntimeError as error:\n    print(error)\n{DECLARED}"
    said = python(attempt, package(tmp_path, "raise RuntimeError('another CUDA')"))
    assert (said.stdout, said.stderr) == ("another CUDA\nFalse\n", "")
