from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pplr_lightning.data import ImageFolder, Joined, Sample
from pplr_lightning.data.pairs import image_names, pair_rows, read_pairs

NAMES = ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]


def csv(folder, text):
    path = folder / "pairs.csv"
    path.write_text(text)
    return path


def test_csv_and_parquet_say_the_same(tmp_path):
    text = "path_a,path_b,same,by\na/1.png,./a/2.png,True,me\na/1.png,b/3.png,0,me\nb/4.png,,,me\n"
    table = pa.table(
        {
            "same": [True, False, None],
            "path_a": ["a/1.png", "a/1.png", "b/4.png"],
            "path_b": ["a/2.png", "b/3.png", None],
        }
    )
    pq.write_table(table, tmp_path / "pairs.parquet")
    for path in (csv(tmp_path, text), tmp_path / "pairs.parquet"):
        pairs = read_pairs(path, tmp_path, NAMES)
        assert pairs.must_link.tolist() == [[0, 1]]
        assert pairs.cannot_link.tolist() == [[0, 2]]
        assert pairs.dropped.tolist() == [False, False, False, True]


def test_answers_are_numbers_also_in_a_column_of_floats(tmp_path):
    rows = "\n".join(f"a/1.png,,,{answer}" for answer in ("1.0", "2", "", "nan", "1.5", "-3", "x"))
    found = pair_rows(csv(tmp_path, f"path_a,path_b,same,answer\n{rows}\n"))
    assert [row.answer for _, row in found] == [1, 2, 0, 0, 0, 0, 0]


def test_a_table_of_nothing(tmp_path):
    pairs = read_pairs(csv(tmp_path, "path_a,path_b,same\n"), tmp_path, NAMES)
    assert pairs.must_link.shape == pairs.cannot_link.shape == (0, 2)
    assert not pairs.dropped.any()


def test_pairs_of_frames_are_pairs_of_tracklets(tmp_path):
    rows = "a/1.png,b/3.png,true\na/2.png,b/4.png,false\nb/3.png,,\n"
    pairs = read_pairs(csv(tmp_path, f"path_a,path_b,same\n{rows}"), tmp_path, NAMES)
    found = pairs.of_tracklets(torch.tensor([0, 1, 2, 2]))
    assert found.must_link.tolist() == [[0, 2]]
    assert found.cannot_link.tolist() == [[1, 2]]
    assert not found.dropped.any()
    assert pairs.of_tracklets(torch.tensor([0, 1, 2, 1 + 2])).dropped.tolist() == [0, 0, 1, 0]
    for numbers in ([0, 1, 1, 1], [0, 0, 1, 1]):  # both in one; one over what is linked
        with pytest.raises(ValueError, match=r"line 3: a/2.png and b/4.png are said to be two"):
            pairs.of_tracklets(torch.tensor(numbers))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path_a,same\n", r"pairs.csv: has no column path_b; needs path_a, path_b, same, has"),
        ("path_a,path_b,same\na/9.png,a/1.png,1\n", r"line 2: no training image a/9.png: names"),
        ("path_a,path_b,same\na/1.png,a/2.png,maybe\n", r"line 2: needs path_a, path_b and a same"),
        ("path_a,path_b,same\na/1.png,,true\n", r"line 2: needs .* or path_a alone"),
        ("path_a,path_b,same\n,a/1.png,true\n", r"line 2: needs"),
        ("path_a,path_b,same\n,,\n", r"line 2: needs"),
        ("path_a,path_b,same\na/1.png,a/2.png\n", r"line 2: not a value for each column"),
        (
            "path_a,path_b,same\na/1.png,a/2.png,1\nb/3.png,a/2.png,1\na/1.png,b/3.png,0\n",
            r"line 4: a/1.png and b/3.png are said to be two people, but one by other rows",
        ),
        ("path_a,path_b,same\na/1.png,a/1.png,0\n", r"line 2: a/1.png is said to be two people;"),
    ],
)
def test_complaints(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_pairs(csv(tmp_path, text), tmp_path, NAMES)


def test_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.csv: no such table"):
        read_pairs(tmp_path / "gone.csv", tmp_path, NAMES)
    (tmp_path / "no.parquet").write_text("path_a")
    with pytest.raises(ValueError, match=r"no.parquet: no Parquet file"):
        read_pairs(tmp_path / "no.parquet", tmp_path, NAMES)


def test_names_are_relative_to_the_root(tmp_path):
    samples = [Sample(str(tmp_path / name), -1, -1) for name in NAMES[:2]]
    assert image_names(ImageFolder(tmp_path), samples) == (tmp_path, NAMES[:2])
    # Several sets have no root in common but what all images lie in.
    several = Joined([ImageFolder(tmp_path / "a"), ImageFolder(tmp_path / "b")])
    assert image_names(several, samples) == (tmp_path / "a", ["1.png", "2.png"])
