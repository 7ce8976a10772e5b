from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime")


@pytest.mark.slow  # it writes an ONNX file
def test_table(capsys):
    from export import main

    words = ["--backbone=test_resnet", "--image_size", "64", "32", "--batches", "1", "3"]
    found = main([*words, "--rounds=1"])
    assert list(found) == [1, 3]
    assert all(value > 0 for pair in found.values() for value in pair)
    assert "| batch | module, ms an image | ONNX file |" in capsys.readouterr().out
