"""What benchmarks refuse to time: wrong results, and kernels of users that do not keep to a kernel's terms."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_conv, checking, harness, own_kernel
from benchmarks.checking import EXACT, FAST, Error
from minires.errors import ArgumentError
from minires.kernels import registry


@pytest.fixture
def mine(tmp_path: Path):
    """Write a function of x, w, geometry and bias, with `y` as the right result, and check it."""

    def check(body: str, signature: str = "x, w, geometry, bias=None, add=None, relu=False") -> Error:
        path = tmp_path / "mine.py"
        head = f"import numpy as np\nfrom minires.kernels import registry\ndef conv2d_mine({signature}):\n"
        path.write_text(
            f"{head}    y = registry['conv2d'].portable.function(x, w, geometry, bias, add, relu)\n    {body}\n"
        )
        where = f"{path}:conv2d_mine"
        cases = bench_conv.odd("fwd")(np.random.default_rng(0))
        return own_kernel.check(own_kernel.load(where), where, "conv2d", cases)

    return check


def test_a_right_kernel_passes(mine, capsys):
    worst = mine("return y")
    assert 0 < worst.max < 1e-5
    assert 0 < worst.rms < 5e-7
    shown = capsys.readouterr().out
    assert "checking for float32 (3, 8, 6, 5), float32 (3, 3, 5, 7)" in shown
    assert f"error of at most {worst.max:.1e}, {worst.rms:.1e} rms" in shown


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return y * np.float32(1.001)", r"mine for float32 \(1, 5, 7, 3\).* is wrong, so it was not timed: its error"),
        ("y[0, 0, 0, 0] = np.nan; return y", "its error is nan at most"),
        ("return y[:, ::-1]", "is wrong"),
        ("return y.swapaxes(1, 2)", r"gives shapes \[\(1, 7, 5, 4\)\] instead of \[\(1, 5, 7, 4\)\], so"),
        ("return y, y", "gives shapes"),
        ("return y.astype(np.float64)", "gives float64 instead of float32"),
        ("x += 1; return y", "writes into its argument 0, so it was not timed"),
        ("if x.shape[1] == 6: raise KeyError('six')\n    return y",
         r"mine for float32 \(1, 6, 9, 4\).* failed, so it was not timed: KeyError: 'six' \(line 5\)"),
    ],
    ids=["factor", "nan", "flipped", "shape", "two", "dtype", "writes", "crash"],
)  # fmt: skip
def test_a_wrong_kernel_is_refused(mine, body, message):
    with pytest.raises(ArgumentError, match=message):
        mine(body)


def test_another_signature_is_refused(mine):
    with pytest.raises(
        ArgumentError, match=r"takes \(a, b\), but kernel conv2d takes \(x, w, geometry, bias, add, relu\)"
    ):
        mine("", signature="a, b")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("conv2d_mine", "give a file and a function"),
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("{}/kernel.py:other", "has no function 'other'"),
        ("{}/broken.py:f", r"cannot be imported: SyntaxError"),
    ],
)
def test_a_function_that_is_not_there(tmp_path, where, message):
    (tmp_path / "kernel.py").write_text("")
    (tmp_path / "broken.py").write_text("def f(:")
    with pytest.raises(ArgumentError, match=message):
        own_kernel.load(where.format(tmp_path))


@pytest.mark.parametrize(
    ("name", "of", "kernel"),
    [
        ("conv2d_mine", None, "conv2d"),
        ("conv2d_grad_input_mine", None, "conv2d_grad_input"),
        ("fast", None, "conv2d"),
        ("fast", "conv2d_grad_weight", "conv2d_grad_weight"),
    ],
)
def test_which_kernel_a_function_stands_for(name, of, kernel):
    assert own_kernel.which(f"mine.py:{name}", of, list(bench_conv.PASSES.values())) == kernel


def test_a_kernel_that_is_not_timed_here():
    with pytest.raises(ArgumentError, match="--of gelu: this benchmark times conv2d"):
        own_kernel.which("mine.py:f", "gelu", ["conv2d"])


def test_errors_are_relative_to_the_rms():
    right = np.array([3.0, 4.0, 0.0, 0.0])  # rms 2.5
    got = np.array([3.0, 4.5, 0.0, 0.0], np.float32)
    assert checking.error(got, [right]) == pytest.approx((0.2, 0.1))
    assert checking.error((got, None, right), [right, right]) == pytest.approx((0.2, 0.1))
    assert checking.error(np.zeros(2), [np.zeros(2)]) == (0, 0)


@pytest.mark.parametrize("found", [(2e-4, 1e-7), (1e-5, 6e-6)])
def test_bounds_hold_for_both_errors(found):
    right = np.ones(10_000)
    got = right + found[1] * np.where(np.arange(10_000) % 2, 1, -1)
    got[0] = 1 + found[0]
    with pytest.raises(ArgumentError, match="who is wrong"):
        checking.verified("who", got, [right])
    checking.verified("who", right, [right])


def test_a_broken_promise_is_told_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "1", "--settle", "0"])
    args = harness.arguments("bench").parse_args()
    right = np.ones(100)

    def measure(bound: Error) -> None:
        with harness.Run("bench", args, with_peaks=False) as run:
            off = harness.Contender(lambda: right + 2e-5 * (np.arange(100) == 7), bound=bound)
            run.measure("ones", "100", {"off": off}, reference=lambda: [right])

    measure(FAST)
    with pytest.raises(SystemExit) as ended:
        measure(EXACT)
    assert ended.value.code == 1
    assert "  ones of off for 100: 2.0e-05 (2.0e-06 rms), where it promises 1.0e-05 (" in capsys.readouterr().out


def test_kernels_that_work_in_place_leave_the_arguments_alone():
    w, g = np.ones(3, np.float32), np.full(3, 2, np.float32)
    rest = (None, 0.5, 0.0, 0.0, 0.0, False, False)
    after = checking.run(registry["sgd_"].portable.function, "sgd_", (w, g, *rest))
    np.testing.assert_array_equal(after, [[0, 0, 0], [2, 2, 2]])
    np.testing.assert_array_equal(w, 1)
    assert [a.dtype for a in checking.reference("sgd_", (w, g, *rest))] == [np.float64] * 2


def test_the_page_shows_the_example_as_it_is():
    docs = Path(__file__).parents[2] / "docs"
    blocks = re.findall(r"^```py\n(.*?)^```", (docs / "benchmarks.md").read_text(encoding="utf-8"), re.M | re.S)
    assert (docs / "own_kernel.py").read_text(encoding="utf-8") in blocks
