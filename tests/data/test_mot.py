from __future__ import annotations

import pytest

from pplr_lightning.data.box_reader import read_boxes
from pplr_lightning.data.mot import mot_rows
from pplr_lightning.data.video import FrameFolder


def test_results_and_ground_truth(tmp_path, monkeypatch):
    monkeypatch.setattr(FrameFolder, "__init__", lambda self, path: None)
    file, frames = tmp_path / "boxes.txt", FrameFolder(tmp_path)
    file.write_text("7,2,11,21.5,30,60,0.9,-1,-1,-1\n\n3,1,1,1,10,20,-1,-1,-1,-1\n3 2 5 6 7 8\n")
    boxes = read_boxes(file, frames)
    assert boxes.frame.tolist() == [3, 3, 7]
    assert boxes.track.tolist() == [1, 2, 2]
    assert boxes.box.tolist() == [[0, 0, 10, 20], [4, 5, 7, 8], [10, 20.5, 30, 60]]
    assert len(read_boxes(file, frames, min_confidence=0.9)) == 2  # none stays
    # Frame, id, box, counted or not, class, visibility.
    file.write_text("1,1,1,1,9,9,1,1,1\n1,2,1,1,9,9,0,1,1\n1,3,1,1,9,9,1,7,0.5\n")
    assert read_boxes(file, frames).track.tolist() == [1]
    assert read_boxes(file, frames, classes=(1, 7)).track.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4,5", r"boxes.txt, line 2: 5 columns, where a box has frame, id, left"),
        ("frame,id,left,top,width,height", r"line 2: could not convert string to float: 'frame'"),
    ],
)
def test_what_is_no_box(tmp_path, text, message):
    file = tmp_path / "boxes.txt"
    file.write_text(f"9,9,9,9,9,9,1\n{text}\n")
    with pytest.raises(ValueError, match=message):
        list(mot_rows(file))
