"""The benchmark of other libraries, with one that is made up: this interpreter and a module of that name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import bench_peers, peer_step
from minires.errors import ArgumentError


@pytest.mark.parametrize("text", ["torch=python", "chainer", "chainer=", "=python"])
def test_peers_are_named(text, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_peers", "--peer", text])
    with pytest.raises(SystemExit):
        bench_peers.main()
    assert "is not NAME=PYTHON with a NAME of chainer, dezero" in capsys.readouterr().err


def test_a_peer_that_fails_is_quoted(tmp_path, monkeypatch):
    (tmp_path / "dezero.py").write_text("raise ImportError('needs an older NumPy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    peer = bench_peers.Peer("dezero", sys.executable, tmp_path / "weights.npz")
    try:
        with pytest.raises(ArgumentError, match="dezero failed: ImportError: needs an older NumPy"):
            peer.train()
    finally:
        peer.close()


def test_losses_must_agree():
    bench_peers.check("x", (2.0001, 4.04), (2.0, 4.0))
    with pytest.raises(ArgumentError, match=r"loss of x in step 1 is 2\.001, not 2: nothing was timed"):
        bench_peers.check("x", (2.001, 4.0), (2.0, 4.0))
    with pytest.raises(ArgumentError, match="in step 2"):
        bench_peers.check("x", (2.0, float("nan")), (2.0, 4.0))


def test_the_recipe_is_the_one_of_the_other_benchmarks():
    from benchmarks.steps import SGD

    assert {"lr": peer_step.LR, "momentum": peer_step.MOMENTUM, "weight_decay": peer_step.WEIGHT_DECAY} == SGD


def test_the_command(tmp_path, monkeypatch, capsys):
    """Through the pipe, with a peer that answers as minires does."""
    script = Path(tmp_path, "peer_step.py")
    script.write_text("import sys\nfor _ in sys.stdin: print(open(sys.argv[0] + '.loss').read(), flush=True)\n")
    losses = []
    monkeypatch.setattr(bench_peers, "check", lambda name, theirs, ours: losses.append((name, theirs)))
    Path(f"{script}.loss").write_text("2.5")
    monkeypatch.setattr(bench_peers, "__file__", str(tmp_path / "bench_peers.py"))
    options = ["--batch", "1", "--rounds", "1", "--settle", "0", "--peer", f"chainer={sys.executable}"]
    monkeypatch.setattr(sys, "argv", ["bench_peers", *options])
    bench_peers.main()
    assert losses == [("chainer", (2.5, 2.5))]
    shown = capsys.readouterr().out
    assert "training step, resnet18, 32x32 images, batch 1:" in shown
    assert [line.split()[0] for line in shown.splitlines()[-2:]] == ["chainer", "minires"]
