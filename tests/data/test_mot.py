from __future__ import annotations

import pytest

from pplr_lightning.data.mot import read_mot


def test_results_and_ground_truth(tmp_path):
    file = tmp_path / "boxes.txt"
    file.write_text("7,2,11,21.5,30,60,0.9,-1,-1,-1\n\n3,1,1,1,10,20,-1,-1,-1,-1\n3 2 5 6 7 8\n")
    boxes = read_mot(file)
    assert boxes.frame.tolist() == [3, 3, 7]
    assert boxes.track.tolist() == [1, 2, 2]
    assert boxes.box.tolist() == [[0, 0, 10, 20], [4, 5, 7, 8], [10, 20.5, 30, 60]]
    assert len(read_mot(file, min_confidence=0.9)) == 2  # what has no confidence stays
    # Frame, id, box, counted or not, class, visibility.
    file.write_text("1,1,1,1,9,9,1,1,1\n1,2,1,1,9,9,0,1,1\n1,3,1,1,9,9,1,7,0.5\n")
    assert read_mot(file).track.tolist() == [1]
    assert read_mot(file, classes=(1, 7)).track.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4,5", r"boxes.txt, line 2: 5 columns, where a box has frame, id, left"),
        ("1,2,3,4,nan,6,1", r"line 2: a number that is not finite"),
        ("1,2,3,4,5,inf,1", r"line 2: a number that is not finite"),
        ("frame,id,left,top,width,height", r"line 2: could not convert string to float: 'frame'"),
        ("1.5,2,3,4,5,6,1", r"line 2: the frame 1.5 is no whole number of 0 to"),
        ("1,-1,3,4,5,6,1", r"line 2: the id -1 is no whole .* let a tracker follow its boxes"),
        ("1e300,1,3,4,5,6,1", r"line 2: the frame 1e\+300 is no whole"),
        ("1,2,3,4,5,-6,1", r"line 2: a box of 5 x -6: give width and height"),
        ("9,9,3,4,5,6,1", r"line 2: a second box of track 9 in frame 9"),
    ],
)
def test_what_is_no_box(tmp_path, text, message):
    file = tmp_path / "boxes.txt"
    file.write_text(f"9,9,9,9,9,9,1\n{text}\n")
    with pytest.raises(ValueError, match=message):
        read_mot(file)


def test_no_box(tmp_path):
    file = tmp_path / "boxes.txt"
    with pytest.raises(FileNotFoundError, match=r"boxes.txt: no such file; give the tracker's"):
        read_mot(file)
    file.write_text("1,1,1,1,9,9,0,1,1\n")
    with pytest.raises(ValueError, match=r"boxes.txt: holds no box above a confidence of 0"):
        read_mot(file)
