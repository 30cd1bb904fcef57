"""Movie tables as they come: encodings, missing values, repeated ids, broken lines, and files that are no tables."""

import gzip

import pytest

from lobbycard.catalog import table as tables
from lobbycard.catalog.table import read_table
from lobbycard.errors import InputError

HEADER = "imdbId,Imdb Link,Title,IMDB Score,Genre,Poster"


def written(tmp_path, *rows, header=HEADER, encoding="utf-8", end="\n"):
    path = tmp_path / "movies.csv"
    path.write_bytes((end.join([header, *rows]) + end).encode(encoding))
    return path


def row(number="84058", title="Heat and Dust (1983)", genre="Drama|Romance", poster="http://h/a.jpg"):
    return f"{number},http://www.imdb.com/title/tt{number},{title},6.7,{genre},{poster}"


def test_a_kaggle_row_becomes_a_typed_row(tmp_path):
    table = read_table(written(tmp_path, row()))
    assert table.frame.to_dict("records") == [
        {
            "item_id": "tt0084058",
            "title": "Heat and Dust (1983)",
            "labels": ("Drama", "Romance"),
            "url": "http://h/a.jpg",
            "file": "tt0084058.jpg",
        }
    ]
    assert (table.rows_read, table.dropped, table.encoding) == (1, {}, "UTF-8")


@pytest.mark.parametrize(
    ("encoding", "title", "name"),
    [
        ("utf-8", "Ménage “Tenue”", "UTF-8"),
        ("utf-8-sig", "Ménage", "UTF-8"),
        ("latin-1", "Ménage (Tenue de soirée)", "Latin-1"),
        ("cp1252", "Ménage “Tenue”", "Windows-1252"),
        ("latin-1", "Mé\x81nage", "Latin-1"),  # 0x81 means nothing in Windows-1252
        ("latin-1", "Mé\x85nage", "Windows-1252"),
    ],
)
def test_each_encoding_is_told_by_its_bytes(tmp_path, encoding, title, name):
    table = read_table(written(tmp_path, row(title=title), row("2"), encoding=encoding))
    shown = "Mé…nage" if "\x85" in title else title
    assert (table.encoding, table.frame["title"][0], len(table.frame)) == (name, shown, 2)


@pytest.mark.parametrize(
    ("written_id", "item_id"),
    [
        ("84058", "tt0084058"),
        ("tt0084058", "tt0084058"),
        ("TT84058", "tt0084058"),
        ("84058.0", "tt0084058"),
        (" 84058 ", "tt0084058"),
        ("0084058", "tt0084058"),
        ("12345678", "tt12345678"),
        ("tt10298810", "tt10298810"),
    ],
)
def test_ids_in_every_usual_form(tmp_path, written_id, item_id):
    frame = read_table(written(tmp_path, row(written_id))).frame
    assert (frame["item_id"][0], frame["file"][0]) == (item_id, f"{item_id}.jpg")


@pytest.mark.parametrize("bad", ["", "N/A", "nm0000123", "0", "-5", "84058.5", "1.2E+06", "123456789", "../../etc"])
def test_what_is_no_id_is_dropped_and_counted(tmp_path, bad):
    table = read_table(written(tmp_path, row(bad), row()))
    assert table.dropped == {tables.BAD_ID: 1} and list(table.frame["item_id"]) == ["tt0084058"]


def test_genres_are_stripped_not_repeated_and_never_na(tmp_path):
    path = written(tmp_path, row("1", genre=" Drama | Sci-Fi|Drama||N/A "), row("2", genre="N/A"), row("3", genre=""))
    table = read_table(path)
    assert list(table.frame["labels"]) == [("Drama", "Sci-Fi")]
    assert table.dropped == {tables.NO_LABELS: 2}
    assert list(read_table(path, need_labels=False).frame["labels"]) == [("Drama", "Sci-Fi"), (), ()]


def test_without_an_address_a_movie_stays_where_its_picture_may_be_on_disk(tmp_path):
    path = written(tmp_path, row("1", poster=""), row("2", poster="N/A"), row("3"))
    table = read_table(path)
    assert list(table.frame["item_id"]) == ["tt0000003"] and table.dropped == {tables.NO_URL: 2}
    assert list(read_table(path, need_url=False).frame["url"]) == ["", "", "http://h/a.jpg"]


def test_repeated_ids_become_one_movie_with_the_union_of_the_genres(tmp_path):
    path = written(
        tmp_path,
        row("1", title="", genre="", poster=""),
        row("2", genre="Drama"),
        row("tt0000001", title="Late", genre="Comedy", poster="http://h/1.jpg"),
        row("2", genre="Drama", title="Other", poster="http://h/other.jpg"),
        row("2", genre="Drama|War"),
    )
    table = read_table(path)
    first, second = table.frame.to_dict("records")
    assert (first["title"], first["labels"], first["url"]) == ("Late", ("Comedy",), "http://h/1.jpg")
    assert (second["title"], second["labels"], second["url"]) == (
        "Heat and Dust (1983)",
        ("Drama", "War"),
        "http://h/a.jpg",
    )
    assert table.dropped == {tables.REPEATED: 2, tables.UNITED: 1}
    every = read_table(path, need_url=False, need_labels=False, merge=False)
    assert every.frame["file"].tolist() == [f"tt{i:07d}.jpg" for i in (1, 2, 1, 2, 2)] and not every.dropped


def test_quoted_commas_quotes_line_breaks_and_crlf(tmp_path):
    path = written(
        tmp_path,
        row("1", title='"Postman, The"', poster='"http://h/a@@._CR5,0,182,268_AL_.jpg"'),
        row("2", title='"Weird ""Al"" and\r\nthe rest"'),
        row("3", title='5" tall'),
        ",,,,,",
        "",
        row("4", title="None") + ",,",  # a spreadsheet's empty cells at the end
        end="\r\n",
    )
    table = read_table(path)
    assert list(table.frame["title"]) == ["Postman, The", 'Weird "Al" and the rest', '5" tall', "None"]
    assert table.frame["url"][0] == "http://h/a@@._CR5,0,182,268_AL_.jpg"
    assert (table.rows_read, table.dropped) == (4, {})


def test_a_broken_line_costs_itself_alone(tmp_path):
    rows = [row(str(n)) for n in range(1, 61)]
    rows[9] = row("10", title='"Left open')  # without care the csv module swallows all that follows
    rows[29] = row("30", title='"Left open too')
    rows[30] = row("31", title='"Quoted, rightly"')
    rows[39] = row("40", title="Unquoted, commas, in it")
    rows[49] = '50,"' + "x" * 200_000
    rows[58] = "59,short"
    table = read_table(written(tmp_path, *rows))
    assert table.dropped == {tables.BAD_LINE: 4, tables.NO_LABELS: 1}
    assert len(table.frame) == 55 and "Quoted, rightly" in set(table.frame["title"])
    assert table.rows_read == len(table.frame) + sum(table.dropped.values())


def test_an_even_number_of_quotation_marks_may_be_left_open_too(tmp_path):
    rows = [row(str(n)) for n in range(1, 41)]
    rows[4] = row("5", title='5" tall', genre='"Drama')
    table = read_table(written(tmp_path, *rows))
    assert (len(table.frame), table.dropped) == (39, {tables.BAD_LINE: 1})


def test_column_names_in_any_case_and_order_and_separator(tmp_path):
    for separator in ",\t;":
        header = separator.join([" genre ", "POSTER", "imdb_id"])
        path = written(tmp_path, separator.join(["Drama", "http://h/a.jpg", "7"]), header=header)
        assert read_table(path).frame["item_id"][0] == "tt0000007"


def test_the_summary_counts_and_gives_reasons(tmp_path):
    table = read_table(written(tmp_path, *[row(str(n)) for n in range(1, 12)], row("x"), row("12", genre="")))
    assert table.summary().splitlines() == [
        "  13 rows read (UTF-8)",
        "  11 movies kept",
        "   1 left out: imdbId is no IMDb number",
        "   1 left out: no genre",
    ]


def test_missing_columns_are_named_with_what_was_found(tmp_path):
    path = written(tmp_path, "1,Drama,http://h/a.jpg", header="movie,Genres,Poster")
    with pytest.raises(InputError) as error:
        read_table(path)
    text = str(error.value)
    assert "expected the columns imdbId, Genre, Poster, found 'movie', 'Genres', 'Poster'" in text
    assert "missing: imdbId, Genre (rename 'Genres'?)" in text
    only_ids = written(tmp_path, "1", header="imdbId")
    assert len(read_table(only_ids, need_url=False, need_labels=False).frame) == 1
    with pytest.raises(InputError, match="missing: Genre, Poster"):
        read_table(only_ids)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"\xef\xbb\xbf\r\n \n", "an empty file"),
        (HEADER.encode() + b"\n\n", "only a header"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG picture"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a PNG picture"),
        (b"PK\x03\x04\x14\x00", "an Excel workbook"),
        (gzip.compress(b"imdbId,Genre"), "gzip"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b'{"imdbId": 1}', "JSON"),
        ((HEADER + "\n" + row()).encode("utf-16"), "UTF-16"),
        (b"imdbId\x00\x01\x02", "binary data"),
        (b"\nOnce upon a time, there was\na poster", "found 'Once upon a time', 'there was'"),
    ],
)
def test_what_is_no_table_is_told_apart(tmp_path, data, words):
    path = tmp_path / "thing.csv"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_table(path)
    assert words in str(error.value) and str(path) in str(error.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="no such file, expected a movie table"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="a folder, expected a movie table"):
        read_table(tmp_path)


def test_a_table_without_one_usable_movie_says_why(tmp_path):
    path = written(tmp_path, row("1", poster=""), row("2", genre=""), row("3", genre=""))
    with pytest.raises(InputError, match=r"no usable movie in 3 rows \(2 x no genre; 1 x no poster address\)"):
        read_table(path)


def test_the_posters_own_table_loses_no_row_unseen(posters):
    table = read_table(posters / "MovieGenre.csv", need_url=False)
    assert table.rows_read == len(table.frame) + sum(table.dropped.values())
    assert table.frame["item_id"].is_unique and (table.frame["file"] == table.frame["item_id"] + ".jpg").all()
    on_disk = {path.name for path in (posters / "images").glob("*.jpg")}
    assert on_disk & set(table.frame["file"])
